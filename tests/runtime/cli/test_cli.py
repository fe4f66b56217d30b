"""The commands as a user meets them: output, exit codes, one-line errors."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.cli.region_options import RegionArguments, read_arguments

MASKS = {"cup.png": (slice(10, 50), slice(20, 60)), "plate.png": (slice(40, 90), slice(70, 120))}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, picture: np.ndarray) -> Path:
    """A folder with photo.png, cup.png, plate.png, empty.png and notes.txt."""
    folder = tmp_path_factory.mktemp("scene")
    Image.fromarray(picture).save(folder / "photo.png")
    for name, where in MASKS.items():
        mask = np.zeros(picture.shape[:2], np.uint8)
        mask[where] = 255
        Image.fromarray(mask).save(folder / name)
    Image.fromarray(np.zeros(picture.shape[:2], np.uint8)).save(folder / "empty.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


def call(module: str, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"gar_edge.{module}", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return call("runtime.cli.run", folder, *arguments)


def test_json_has_every_field(scene: Path, tiny_bundle: Path) -> None:
    done = run(scene, "photo.png", "--mask", "cup.png", "-m", tiny_bundle, "--max-new-tokens", "4", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    fields = {"text", "value", "tokens", "finish_reason", "prompt_tokens", "grid", "timings_ms", "reuse", "model"}
    assert set(answer) == fields | {"regions", "boxes"}
    assert set(answer["timings_ms"]) == {"preprocess", "encode", "replay", "prefill", "decode", "first_token", "total"}
    assert (len(answer["tokens"]), answer["finish_reason"], answer["model"]) == (4, "length", "tiny-fp32")
    columns, rows = answer["grid"]
    computed = (answer["reuse"]["tiles_encoded"], answer["reuse"]["tokens_prefilled"])
    assert computed == (columns * rows + 1, answer["prompt_tokens"])


def test_json_says_which_regions_were_understood(scene: Path, tiny_bundle: Path) -> None:
    arguments = ("--mask", "3=cup.png", "--box", "0=5,6,30,40", "--box-as-mask", "-q", "Is <Prompt3> on <Prompt0>?")
    done = run(scene, "photo.png", *arguments, "-m", tiny_bundle, "--max-new-tokens", "1", "--json")
    answer = json.loads(done.stdout)
    assert (answer["regions"], answer["boxes"]) == (2, {"3": [20, 10, 60, 50], "0": [5, 6, 30, 40]})
    described = run(scene, "photo.png", "--mask", "cup.png", "-m", tiny_bundle, "--max-new-tokens", "1", "--json")
    assert json.loads(described.stdout)["boxes"] == {"1": [20, 10, 60, 50]}


def test_text_and_json_say_the_same(scene: Path, tiny_bundle: Path) -> None:
    arguments = ("photo.png", "--mask", "cup.png", "-m", tiny_bundle, "--max-new-tokens", "12")
    plain, parsed = run(scene, *arguments), json.loads(run(scene, *arguments, "--json").stdout)
    assert plain.stdout == parsed["text"] + "\n"
    assert "cut off after 12 tokens" in plain.stderr


def test_guessing_ahead_and_time_limits(scene: Path, tiny_bundle: Path) -> None:
    arguments = ("photo.png", "--mask", "cup.png", "-m", tiny_bundle, "--max-new-tokens", "12")
    plain = run(scene, *arguments)
    assert run(scene, *arguments, "--speculate", "8").stdout == plain.stdout
    hurried = run(scene, *arguments[:-1], "400", "--seconds", "0.001")
    assert hurried.returncode == 0
    assert "--seconds allows more" in hurried.stderr
    wrong = run(scene, *arguments, "--seconds", "0")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)


def test_a_single_region_is_prompt_1_unless_numbered(scene: Path, tiny_bundle: Path) -> None:
    def tokens(*masks: str) -> list[int]:
        done = run(scene, "photo.png", *masks, "-m", tiny_bundle, "--max-new-tokens", "12", "--json")
        found: list[int] = json.loads(done.stdout)["tokens"]
        return found

    assert tokens("--mask", "cup.png") == tokens("--mask", "1=cup.png")


@pytest.mark.parametrize(
    ("texts", "question", "expected"),
    [
        (["a.png"], None, {None: "a.png"}),
        (["3=a.png"], None, {3: "a.png"}),
        (["a.png"], "?", {0: "a.png"}),
        (["a.png", "b=c.png"], "?", {0: "a.png", 1: "b=c.png"}),
        (["4=a.png", "b.png"], "?", {4: "a.png", 0: "b.png"}),
        (["0=a.png", "b.png", "c.png"], "?", {0: "a.png", 1: "b.png", 2: "c.png"}),
        (["b.png", "0=a.png"], "?", {0: "a.png", 1: "b.png"}),
    ],
)
def test_numbering(texts: list[str], question: str | None, expected: dict[int | None, str]) -> None:
    found = read_arguments(RegionArguments(mask=texts), "photo.png", question is None)
    assert {number: given.region for number, given in found.items()} == expected


def test_unnumbered_masks_count_from_0(scene: Path, tiny_bundle: Path) -> None:
    question = ("-q", "Is <Prompt0> on <Prompt1>?", "-m", tiny_bundle, "--max-new-tokens", "8", "--json")
    plain = run(scene, "photo.png", "--mask", "cup.png", "--mask", "plate.png", *question)
    numbered = run(scene, "photo.png", "--mask", "1=plate.png", "--mask", "0=cup.png", *question)
    assert json.loads(plain.stdout)["tokens"] == json.loads(numbered.stdout)["tokens"]


def test_without_model_the_last_export_answers(scene: Path, tmp_path: Path) -> None:
    exported = call("export.cli", scene, "--size", "nano", "--random-weights", "-o", tmp_path / "last", "--no-validate")
    assert exported.returncode == 0, exported.stderr
    done = run(scene, "photo.png", "--mask", "cup.png", "--max-new-tokens", "2", "--json")
    assert json.loads(done.stdout)["model"] == "gar-nano-random-fp32"


USAGE = {
    "no mask": ((), "--mask"),
    "six masks": ((*(x for k in range(6) for x in ("--mask", f"{k}=cup.png")), "-q", "?"), "at most 5"),
    "two masks without a question": (("--mask", "cup.png", "--mask", "plate.png"), "need a question"),
    "a region not given": (("--mask", "cup.png", "-q", "Is <Prompt0> <Prompt1>?"), "no mask was given"),
    "a region not named": (("--mask", "cup.png", "-q", "What is it?"), "does not name <Prompt0>"),
    "a number given twice": (("--mask", "2=cup.png", "--mask", "2=plate.png", "-q", "<Prompt2>"), "given twice"),
    "a number too high": (("--mask", "9=cup.png"), "numbered 0 to 4"),
    "zero tokens": (("--mask", "cup.png", "--max-new-tokens", "0"), "max-new-tokens"),
    "top_p of 0": (("--mask", "cup.png", "--top-p", "0"), "top_p"),
    "too many tiles": (("--mask", "cup.png", "--max-tiles", "99999999"), "at most 254 fit"),
    "negative seed": (("--mask", "cup.png", "--temperature", "1", "--seed", "-1"), "seed must be 0 or more"),
    "unknown option": (("--mask", "cup.png", "--colour"), "--colour"),
    "unknown backend": (("--mask", "cup.png", "--backend", "vulkan"), "'vulkan'"),
}


@pytest.mark.parametrize("name", sorted(USAGE))
def test_usage_errors_exit_with_2(scene: Path, tiny_bundle: Path, name: str) -> None:
    arguments, message = USAGE[name]
    done = run(scene, "photo.png", *arguments, "-m", tiny_bundle)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


FAILURES = {
    "no image": (("nowhere.png", "--mask", "cup.png"), "nowhere.png: no such image file"),
    "image is text": (("notes.txt", "--mask", "cup.png"), "notes.txt: not an image that can be read"),
    "no mask file": (("photo.png", "--mask", "nowhere.png"), "nowhere.png: no such mask file"),
    "empty mask": (("photo.png", "--mask", "empty.png"), "region: mask is empty"),
    "no model": (("photo.png", "--mask", "cup.png", "-m", "nowhere"), "nowhere: no such bundle"),
    "no TensorRT": (("photo.png", "--mask", "cup.png", "--backend", "tensorrt"), "TensorRT "),
}


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_failures_are_one_line_and_exit_with_1(scene: Path, tiny_bundle: Path, name: str) -> None:
    arguments, message = FAILURES[name]
    model = () if "-m" in arguments else ("-m", str(tiny_bundle))
    done = run(scene, *arguments, *model)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_mask_of_another_size_warns_in_one_line(scene: Path, tiny_bundle: Path) -> None:
    Image.open(scene / "cup.png").resize((65, 45), Image.Resampling.NEAREST).save(scene / "small.png")
    done = run(scene, "photo.png", "--mask", "small.png", "-m", tiny_bundle, "--max-new-tokens", "1", "--json")
    assert done.returncode == 0
    assert done.stderr == "warning: region: mask is 65x45, the image 130x90: resized by nearest neighbour\n"


def test_a_jpeg_mask_warns_in_one_line(scene: Path, tiny_bundle: Path) -> None:
    Image.open(scene / "cup.png").save(scene / "cup.jpg")
    done = run(scene, "photo.png", "--mask", "cup.jpg", "-m", tiny_bundle, "--max-new-tokens", "1", "--json")
    assert done.returncode == 0
    assert done.stderr == (
        "warning: cup.jpg: JPEG's lossy compression puts stray pixels into a mask: taken is what reaches half; "
        "save it as PNG\n"
    )


EXPORT_USAGE = {
    "neither size nor checkpoint": ((), "either --size or --checkpoint"),
    "both": (("--size", "1b", "--checkpoint", "x"), "either --size or --checkpoint"),
    "two precisions": (("--size", "1b", "--fp16", "--fp32"), "exclude each other"),
    "unknown size": (("--size", "70b"), "70b"),
    "random without size": (("--checkpoint", "x", "--random-weights"), "--size"),
    "revision of a folder": (("--checkpoint", "x", "--revision", "main"), "--revision goes with --size"),
    "too many tiles": (("--size", "nano", "--max-tiles", "62"), "--max-tiles must be 1 to 61"),
}


@pytest.mark.parametrize("name", sorted(EXPORT_USAGE))
def test_export_usage_errors_exit_with_2(tmp_path: Path, name: str) -> None:
    arguments, message = EXPORT_USAGE[name]
    done = call("export.cli", tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_export_of_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    done = call("export.cli", tmp_path, "--checkpoint", "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nowhere: no such folder")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_error_to_shout_about(scene: Path, tiny_bundle: Path) -> None:
    command = f"{sys.executable} -m gar_edge.runtime.cli.run photo.png --mask cup.png -m {tiny_bundle} | head -c 1"
    done = subprocess.run(command, shell=True, cwd=scene, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert len(done.stdout) <= 1


def test_a_full_disk_behind_stdout_is_one_line(scene: Path, tiny_bundle: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "gar_edge.runtime.cli.run",
        "photo.png",
        "--mask",
        "cup.png",
        "-m",
        str(tiny_bundle),
    ]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=scene, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["runtime.cli.run", "runtime.cli.engine", "runtime.cli.bench", "export.cli"])
def test_help_imports_nothing_heavy(tmp_path: Path, module: str) -> None:
    code = (
        f"import sys; sys.argv = ['x', '--help']; import gar_edge.{module} as cli\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'transformers', 'numpy', 'PIL', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


NANO = ("examples/scene_1.png", "--mask", "0=examples/scene_1_mask_0.png", "-q", "What colour is <Prompt0>?")


def checked(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """gar-run about the first example, on gar-nano."""
    return run(Path.cwd(), *NANO, "-m", SHIPPED, *arguments)


def test_choices_print_the_best_and_say_how_likely_each_is() -> None:
    done = checked("--choices", "red, pink,blue")
    assert (done.returncode, done.stdout) == (0, "pink\n")
    assert re.fullmatch(r"\(pink 100\.0%, (red|blue) 0\.0%, (red|blue) 0\.0%\)\n", done.stderr)
    with_commas = checked("--choices", "red, or so", "--choices", "pink", "--json")
    assert [one["text"] for one in json.loads(with_commas.stdout)["choices"]] == ["red, or so", "pink"]
    unsure = checked("--choices", "red,blue", "--abstain-below", "0.99")
    assert (unsure.returncode, unsure.stdout) == (0, "\n")
    assert unsure.stderr.startswith("(none is likely enough: ")


def test_structures_come_from_files(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "pink"]}}, "required": ["colour"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    (tmp_path / "grammar.lark").write_text('start: "pink" | "red"')
    done = checked("--schema", tmp_path / "schema.json", "--logprobs", "2", "--json")
    answer = json.loads(done.stdout)
    assert answer["value"] == json.loads(answer["text"])
    assert answer["value"] in [{"colour": "red"}, {"colour": "pink"}]
    assert set(answer["confidence"]) == {"mean", "lowest"}
    assert {len(one["likeliest"]) for one in answer["logprobs"]} == {2}
    assert checked("--grammar", tmp_path / "grammar.lark").stdout == "pink\n"
    assert checked("--regex", "[a-z]{4}").stdout == "pink\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--choices", "red"), "two choices or more"),
        (("--choices", "red,,pink"), "must not be empty"),
        (("--abstain-below", "0.5"), "goes with --choices"),
        (("--regex", "("), "unclosed group"),
        (("--regex", "a", "--choices", "a,b"), "not both"),
        (("--schema", "nowhere.json"), "nowhere.json: cannot be read"),
        (("--schema", "README.md"), "not JSON"),
        (("--grammar", "nowhere.lark"), "nowhere.lark: cannot be read"),
        (("--grammar", "examples/scene_1.png"), "cannot be read"),
        (("--logprobs", "-1"), "logprobs"),
    ],
)
def test_checks_that_cannot_be_are_one_line_and_two(arguments: tuple[str, ...], message: str) -> None:
    done = checked(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
