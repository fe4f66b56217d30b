"""Jobs: each answered exactly once, whatever moment the run is killed at, and none stopped by another."""

import base64
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gar_edge.runtime import Box, Gar, Options, Scene
from gar_edge.runtime.errors import GarBackendError, GarPromptError
from gar_edge.runtime.jobs import prepare
from gar_edge.runtime.jobs.job import JobSettings, read_jobs
from gar_edge.runtime.jobs.log import JobLog
from gar_edge.runtime.jobs.run import Tally, run_jobs
from gar_edge.runtime.regions import box_mask

OPTIONS = Options(max_new_tokens=3)
GOOD = {"image": "photo.png", "regions": [{"box": [5, 5, 60, 50]}]}


@pytest.fixture(scope="module")
def gar(tiny_bundle: Path) -> Gar:
    return Gar.load(tiny_bundle)


@pytest.fixture
def folder(tmp_path: Path, picture: np.ndarray) -> Path:
    (tmp_path / "images").mkdir()
    Image.fromarray(picture).save(tmp_path / "photo.png")
    Image.fromarray(picture[:, ::-1]).save(tmp_path / "images" / "other.png")
    return tmp_path


def write(folder: Path, entries: list[Any], lines: bool = False) -> Path:
    path = folder / ("jobs.jsonl" if lines else "jobs.json")
    texts = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(texts) + "\n" if lines else json.dumps(entries))
    return path


def run(path: Path, gar: Gar, tallies: list[Tally] | None = None, options: Options = OPTIONS) -> Tally:
    watch = (lambda tally: None) if tallies is None else tallies.append
    with JobLog(path.parent / "out.jsonl") as log:
        settings = JobSettings(folder=path.parent, options=options, segment=box_mask, max_tiles=None)
        return run_jobs(read_jobs(path), log, gar, settings, watch)


def answers(folder: Path) -> list[dict[str, Any]]:
    """The lines, in the jobs' order: they are written as answers end."""
    text = (folder / "out.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return sorted((json.loads(line) for line in text.splitlines()), key=lambda line: line["index"])


MANY: list[Any] = [
    {**GOOD, "id": "cup"},
    {"image": "nowhere.png", "regions": GOOD["regions"]},
    {"image": "photo.png", "regions": [{"box": [500, 5, 600, 50]}]},
    {"image": "photo.png", "question": "What is <Prompt0>?"},
    {"image": "photo.png", "question": "Is <Prompt0> on <Prompt1>?", "regions": GOOD["regions"]},
    {"image": "photo.png", "mask_rles": [{"size": [9**9, 9**9], "counts": [9**18]}]},
    {"image": "photo.png", "question": "Half a \ud800 <Prompt0>", "regions": GOOD["regions"]},
    {"image": "photo.png", "question": 7, "regions": GOOD["regions"]},
    7,
    {"regions": GOOD["regions"]},
    {"image": "images/other.png", "question": "Is <Prompt3> größer?", "regions": {"3": {"box": [5, 5, 60, 50]}}},
    {"image": "photo.png", "question": "", "mask_rles": [{"size": [9, 13], "counts": [40, 30, 47]}], "answer": "?"},
]
WRONG = {
    1: "nowhere.png: no such image file", 2: "region 0: box 500,5,600,50 lies outside", 3: "an object with box",
    4: "<Prompt1>", 5: "over", 6: "no text", 7: "[7].question is 7", 8: "[8] is 7", 9: "[9].image is missing",
}  # fmt: skip


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.filterwarnings("ignore:region 0")
def test_a_bad_job_gets_its_error_as_its_line_and_stops_no_other(folder: Path, gar: Gar, lines: bool) -> None:
    entries = [*MANY, "{"] if lines else MANY
    tallies: list[Tally] = []
    wrong = {**WRONG, 12: "[12] is not JSON"} if lines else WRONG
    assert run(write(folder, entries, lines), gar, tallies) == Tally(len(entries), len(wrong), 0)
    assert [tally.done for tally in tallies] == list(range(len(entries) + 1))
    found = answers(folder)
    assert [line["index"] for line in found] == list(range(len(entries)))
    for line in found:
        index = line["index"]
        assert ("error" in line) == (index in wrong), line
        if index in wrong:
            assert wrong[index] in line["error"]
            assert "\n" not in line["error"]
    scene = gar.open(folder / "photo.png")
    assert found[0]["id"] == "cup"
    assert found[0]["image"] == "photo.png"
    assert tuple(found[0]["tokens"]) == scene.describe(box_mask(scene.image, Box(5, 5, 60, 50)), options=OPTIONS).tokens
    assert found[10]["question"] == "Is <Prompt3> größer?"


def test_a_run_goes_on_where_another_stopped(folder: Path, gar: Gar) -> None:
    path = write(folder, [{**GOOD, "id": n} for n in range(6)])
    everything = run(path, gar)
    assert everything == Tally(6, 0, 0)
    whole = (folder / "out.jsonl").read_bytes()
    assert run(path, gar) == Tally(6, 0, 6)
    assert (folder / "out.jsonl").read_bytes() == whole
    (folder / "out.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    assert run(path, gar) == Tally(6, 0, 4)
    assert [line["id"] for line in answers(folder)] == list(range(6))


def test_an_altered_job_is_asked_again_and_a_moved_one_with_an_id_is_not(folder: Path, gar: Gar) -> None:
    one, two = {**GOOD, "id": "one"}, {**GOOD, "id": "two"}
    run(write(folder, [one, two]), gar)
    altered = {**two, "question": "What is <Prompt0>?"}
    assert run(write(folder, [altered, one]), gar) == Tally(2, 0, 1)


@pytest.mark.parametrize("tail", ["half", "zeros", "one byte"])
def test_the_beginning_of_a_line_is_cut_off_wherever_it_ends(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "out.jsonl"
    with JobLog(path) as log:
        log.write("a", {"text": "größer\u2028\n"})
    whole = path.read_bytes()
    torn = {"half": whole[: len(whole) // 2], "zeros": whole[:12] + b"\0" * 9, "one byte": b"{"}[tail]
    path.write_bytes(whole + torn)
    with JobLog(path) as log:
        assert list(log.done) == ["a"]
        log.write("b", {"error": "no"})
    lines = path.read_bytes().split(b"\n")
    assert [json.loads(line)["job"] for line in lines[:-1]] == ["a", "b"]
    assert lines[-1] == b""


def test_every_beginning_of_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with JobLog(path) as log:
        log.write("0:ab", {"text": "ö"})
    line = path.read_bytes()
    for length in range(len(line)):
        path.write_bytes(line + line[:length])
        with JobLog(path):
            pass
        assert path.read_bytes() == line, length


@pytest.mark.parametrize(
    "content", ["text\n", "text", '{"text": "x"}\n', "[1]\n", '{"job": 7}\n', '{"job": "a"}\nx\n', "\0\n"]
)
def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(content)
    with pytest.raises(GarPromptError, match=r"mine.txt: line \d is no job's answer; give a file of its own"):
        JobLog(path)
    assert path.read_text() == content


def test_one_run_at_a_time_writes(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with JobLog(tmp_path / "out.jsonl"), pytest.raises(GarPromptError, match="another run is writing"):
        JobLog(tmp_path / "out.jsonl")
    JobLog(tmp_path / "out.jsonl").__exit__(None, None, None)


def test_answers_of_two_models_are_not_mixed(folder: Path, gar: Gar) -> None:
    with JobLog(folder / "out.jsonl") as log:
        log.write("x", {"model": "gar-1b"})
    with pytest.raises(GarPromptError, match="holds answers of gar-1b, not tiny"):
        run(write(folder, [GOOD]), gar)


@pytest.mark.parametrize(
    ("entries", "lines", "part"),
    [
        ([], False, "holds no job"),
        ([], True, "holds no job"),
        ({"image": "a"}, False, "must be a list"),
        ([{**GOOD, "id": 1}, {**GOOD, "id": 1}], False, "jobs 0 and 1 are the same"),
    ],
)
def test_a_jobs_file_that_holds_none_is_refused(tmp_path: Path, entries: Any, lines: bool, part: str) -> None:
    with pytest.raises(GarPromptError, match=part):
        read_jobs(write(tmp_path, entries, lines))


def test_a_broken_jobs_file_is_named(tmp_path: Path) -> None:
    for name, content in (("a.json", b"["), ("b.jsonl", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GarPromptError, match=name):
            read_jobs(tmp_path / name)
    with pytest.raises(GarPromptError, match=r"none\.jsonl"):
        read_jobs(tmp_path / "none.jsonl")


def test_what_would_meet_every_job_ends_the_run(folder: Path, gar: Gar, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise GarBackendError("the engine is gone")

    monkeypatch.setattr(prepare, "find_mask", fail)
    with pytest.raises(GarBackendError):
        run(write(folder, [GOOD, GOOD]), gar)
    assert (folder / "out.jsonl").read_bytes() == b""


def test_a_picture_that_comes_again_is_opened_once(folder: Path, gar: Gar, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, original = [], Gar.open

    def noted(self: Gar, image: Path, *, max_tiles: int | None) -> Scene:
        opened.append(image.name)
        return original(self, image, max_tiles=max_tiles)

    monkeypatch.setattr(Gar, "open", noted)
    other = {**GOOD, "image": "images/other.png"}
    run(write(folder, [GOOD, GOOD, other, other, GOOD]), gar)
    assert sorted(opened) == ["other.png", "photo.png"]


def test_jobs_about_several_pictures_are_answered_together(
    folder: Path, gar: Gar, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    bind = gar.pipeline.decoder.session.bind

    def counted(inputs: Any, outputs: Any) -> Any:
        sizes.append(inputs["inputs_embeds"].shape[0])
        return bind(inputs, outputs)

    monkeypatch.setattr(gar.pipeline.decoder.session, "bind", counted)
    options = Options(max_new_tokens=30)
    run(write(folder, [GOOD, {**GOOD, "image": "images/other.png"}] * 3), gar, options=options)
    assert max(sizes) > 2
    for line in answers(folder):
        scene = gar.open(folder / line["image"])
        alone = scene.describe(box_mask(scene.image, Box(5, 5, 60, 50)), options=options)
        assert tuple(line["tokens"]) == alone.tokens


def command(path: Path, bundle: Path) -> list[str]:
    out = ["--jsonl", str(path.parent / "out.jsonl")]
    name = [sys.executable, "-m", "gar_edge.runtime.cli.run"]
    options = ["--box-as-mask", "--max-new-tokens", "12", "--threads", "1"]
    return [*name, "--jobs", str(path), *out, "-m", str(bundle), *options]


def test_killed_at_random_moments_every_job_is_answered_once(folder: Path, tiny_bundle: Path) -> None:
    moments = random.Random(3)
    path, out = write(folder, [{**GOOD, "id": n} for n in range(40)]), folder / "out.jsonl"
    for _ in range(3):
        size = out.stat().st_size if out.exists() else 0
        with subprocess.Popen(command(path, tiny_bundle), stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and (not out.exists() or out.stat().st_size == size):
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
    with out.open("ab") as file:  # and once in the middle of a line
        file.write(out.read_bytes()[:40])
    done = subprocess.run(command(path, tiny_bundle), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "40 jobs" in done.stderr
    assert sorted(line["id"] for line in answers(folder)) == list(range(40))
    assert len({tuple(line["tokens"]) for line in answers(folder)}) == 1


def test_failed_jobs_are_counted_in_the_exit(folder: Path, tiny_bundle: Path) -> None:
    path = write(folder, [GOOD, {**GOOD, "image": "nowhere.png"}])
    for earlier in (0, 2):
        done = subprocess.run(command(path, tiny_bundle), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"2 jobs, {earlier} of them answered before" in done.stderr
        assert "error: 1 of 2 jobs failed; their lines in" in done.stderr
        assert done.stdout == ""
    assert len(answers(folder)) == 2


def test_a_picture_written_out_is_refused_and_not_repeated(folder: Path, gar: Gar) -> None:
    content = base64.b64encode((folder / "photo.png").read_bytes()).decode()
    sources = [f"data:image/png;base64,{content}", content, f"http://me:secret@h.example/{'a' * 400}.png"]
    assert run(write(folder, [{**GOOD, "image": source} for source in sources]), gar).failed == 3
    for line in answers(folder):
        assert len(json.dumps(line)) < 700
        assert "secret" not in json.dumps(line)
        assert content[100:140] not in json.dumps(line)


def test_pictures_are_named_by_file_addresses_too(folder: Path, gar: Gar) -> None:
    assert run(write(folder, [{**GOOD, "image": (folder / "photo.png").as_uri()}]), gar).failed == 0


RELEASED = "Question: Is <Prompt0> red?\nOptions:\nA. Yes\nB. No\nAnswer with the correct option's letter directly."


@pytest.mark.parametrize("choices", [["A. Yes", "B. No"], ["Yes", " No "], {"A": "Yes", "B": "No"}])
def test_choices_are_asked_in_the_released_wording(choices: Any, folder: Path, gar: Gar) -> None:
    job = {**GOOD, "question": "Is <Prompt0> red?", "choices": choices}
    assert run(write(folder, [job]), gar).failed == 0
    [line] = answers(folder)
    scene = gar.open(folder / "photo.png")
    masks = {0: box_mask(scene.image, Box(5, 5, 60, 50))}
    assert tuple(line["tokens"]) == scene.ask(RELEASED, masks, options=OPTIONS).tokens
    assert line["prompt_tokens"] == scene.ask(RELEASED, masks, options=OPTIONS).prompt_tokens


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"choices": ["Yes", "No"]}, "question is missing; it must be a text, to go with the choices"),
        ({"question": "Is <Prompt0> red?", "choices": "['A. Yes']"}, "choices is"),
        ({"question": "Is <Prompt0> red?", "choices": ["Yes", 7]}, "choices[1] is 7"),
        ({"question": "Is <Prompt0> red?", "choices": {"A": ["Yes"]}}, "choices.A is"),
        ({"question": "Is <Prompt0> red?", "choices": ["Yes", ""]}, "choices[1] is"),
        ({"question": "Is <Prompt0> red?", "choices": ["x"] * 27}, "a list of at most 26"),
    ],
)
def test_choices_that_are_none_are_refused(fields: dict[str, Any], said: str, folder: Path, gar: Gar) -> None:
    assert run(write(folder, [{**GOOD, **fields}]), gar).failed == 1
    [line] = answers(folder)
    assert said in line["error"]


def test_no_choices_are_none(folder: Path, gar: Gar) -> None:
    run(write(folder, [{**GOOD, "choices": []}, {**GOOD, "choices": None}, GOOD]), gar)
    first, second, third = answers(folder)
    assert first["tokens"] == second["tokens"] == third["tokens"]
