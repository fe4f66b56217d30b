"""Asking a task's questions: each once, in the released wording, and as the released evaluation asks."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.bench_data import SIZE, multiple_choice, picture, runs
from helpers.reference_gar import Reference
from pycocotools import mask as coco
from tokenizers import Tokenizer

from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.nano.questions import write_questions
from gar_edge.runtime import Gar, GarPromptError, Options
from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.evaluate.as_released import prepare_as_released
from gar_edge.runtime.evaluate.run import run_task
from gar_edge.runtime.evaluate.score import score
from gar_edge.runtime.evaluate.tasks import task_of
from gar_edge.runtime.generate.prompt import PromptBuilder
from gar_edge.runtime.generate.side_by_side import answer_side_by_side
from gar_edge.runtime.jobs.question import read_question

BENCH = Path(os.environ.get("GAR_EDGE_BENCH", Path(__file__).parents[4] / "shared" / "bench")) / "gar-bench"
VQA = task_of("gar-bench-vqa")


@pytest.fixture(scope="module")
def nano() -> Gar:
    return Gar.load(SHIPPED)


def test_a_run_asks_each_question_once_and_writes_the_released_form(nano: Gar, tmp_path: Path) -> None:
    entries = multiple_choice(tmp_path, 6)
    done = run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=4)
    assert (done.questions, done.answered, done.missing, done.failed, done.too_many) == (6, 6, (), {}, 0)
    packed = json.loads(done.answers.read_text())
    assert [{**entry} for entry in entries] == [
        {name: value for name, value in entry.items() if name != "model_output"} for entry in packed
    ]
    for entry in packed:
        masks = {number: coco.decode(one).astype(bool) for number, one in enumerate(entry["mask_rles"])}
        question = "Question: {}\nOptions:\n{}\nAnswer with the correct option's letter directly.".format(
            entry["question"], "\n".join(entry["choices"])
        )
        scene = nano.open(tmp_path / entry["image"])
        assert entry["model_output"] == scene.ask(question, masks, options=Options(max_new_tokens=4)).text
    before = (tmp_path / "out/gar-bench-vqa.jsonl").read_text()
    again = run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=4)
    assert again == done
    assert (tmp_path / "out/gar-bench-vqa.jsonl").read_text() == before


def test_missing_pictures_and_too_many_regions_are_counted_and_the_rest_goes_on(nano: Gar, tmp_path: Path) -> None:
    entries = multiple_choice(tmp_path, 5)
    (tmp_path / entries[1]["image"]).unlink()
    names = [f"<Prompt{number}>" for number in range(7)]
    entries[3] |= {"mask_rles": [runs(number) for number in range(7)], "question": " ".join(names)}
    (tmp_path / "GAR-Bench-VQA.json").write_text(json.dumps(entries))
    (tmp_path / entries[4]["image"]).write_bytes(b"no picture")
    done = run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=2)
    assert (done.answered, done.missing, done.too_many) == (2, (entries[1]["image"],), 1)
    (error,) = done.failed.values()
    assert "vqa_4.png" in error
    assert score(VQA, tmp_path, done.answers).missing == 3
    picture(tmp_path, entries[1]["image"])  # it was found again
    assert run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=2).answered == 3


def test_answers_of_another_bundle_or_other_settings_are_not_mixed(
    nano: Gar, tiny_bundle: Path, tmp_path: Path
) -> None:
    multiple_choice(tmp_path, 2)
    run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=2)
    with pytest.raises(GarPromptError, match=r"made with bundle \w+, not \w+; give another --out"):
        run_task(VQA, Gar.load(tiny_bundle), tmp_path, tmp_path / "out", max_new_tokens=2)
    with pytest.raises(GarPromptError, match="made with max_new_tokens 2, not 3"):
        run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=3)
    same_name = shutil.copytree(SHIPPED, tmp_path / "copy")
    manifest = (same_name / "gar.json").read_text()
    (same_name / "gar.json").write_text(manifest.replace('"created_by": "', '"created_by": "another '))
    with pytest.raises(GarPromptError, match="made with bundle"):
        run_task(VQA, Gar.load(same_name), tmp_path, tmp_path / "out", max_new_tokens=2)


def test_words_of_any_script_and_half_characters_come_back(nano: Gar, tmp_path: Path) -> None:
    """Line separators inside a text are no ends of lines; half a surrogate pair is kept as JSON's escape."""
    entries = multiple_choice(tmp_path, 2)
    entries[0]["question"] = "Which\u2028 is\x85 red, <Prompt0> or <Prompt1>?"
    entries[1]["note"] = "\ud83d"
    (tmp_path / "GAR-Bench-VQA.json").write_text(json.dumps(entries))
    done = run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=2)
    assert done.answered == 2
    assert [entry.get("note") for entry in json.loads(done.answers.read_text())] == [None, "\ud83d"]


@pytest.mark.parametrize("name", ["x" * 400, "data:image/png;base64,AAAA", "a\0b", "https://example.org/a.png"])
def test_a_name_that_no_picture_can_have_is_a_missing_one(nano: Gar, tmp_path: Path, name: str) -> None:
    entries = multiple_choice(tmp_path, 2)
    entries[0]["image"] = name
    (tmp_path / "GAR-Bench-VQA.json").write_text(json.dumps(entries))
    done = run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=2)
    assert (done.answered, done.missing) == (1, (name,))


def test_what_failed_is_asked_again(nano: Gar, tmp_path: Path) -> None:
    entries = multiple_choice(tmp_path, 2)
    (tmp_path / entries[0]["image"]).write_bytes(b"no picture")
    assert len(run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=2).failed) == 1
    picture(tmp_path, entries[0]["image"])
    again = run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=2)
    assert (again.answered, again.failed) == (2, {})


def test_as_released_is_for_questions_about_several_regions(nano: Gar, tmp_path: Path) -> None:
    write_questions(tmp_path, 1, range(1))
    with pytest.raises(GarPromptError, match="asks about one region at a time"):
        run_task(task_of("regions"), nano, tmp_path, tmp_path / "out", as_released=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", ""), ("{}", "must be a list"), ('[{"image": 7}]', "image is 7"), ('[{"image": "a.png"}]', "mask_rles"),
     ("[", "not JSON")],
)  # fmt: skip
def test_data_that_are_not_the_tasks_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "GAR-Bench-VQA.json").write_text(content)
    if not message:
        assert VQA.read(tmp_path) == []
        return
    with pytest.raises(GarPromptError, match=message):
        VQA.read(tmp_path)


@pytest.mark.skipif(not BENCH.is_dir(), reason="the released benchmarks are not here (GAR_EDGE_BENCH names them)")
def test_prompts_of_released_questions_are_those_of_the_released_wording(checkpoint: Checkpoint, bundle: Path) -> None:
    """Every seventh question and caption, more than 60 in all; with more than five regions by their plain names."""
    reference, gar = Reference(checkpoint), Gar.load(bundle)
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)
    tokenizer.add_special_tokens([f"<|reserved_special_token_{number}|>" for number in range(7, 12)])
    reference.tokenizer = tokenizer
    spec = gar.manifest.prompt
    prompts = PromptBuilder(spec, gar.manifest.dimensions.tile_tokens, tokenizer, gar.pipeline.bundle.chat_template)
    seen = 0
    for name in ("gar-bench-vqa", "gar-bench-caption-simple", "gar-bench-caption-detailed"):
        items = task_of(name).read(BENCH)
        for item in [one for place, one in enumerate(items) if place % 7 == 0 or one.regions > 5]:
            entry, field = item.entry, item.job.field
            assert not isinstance(field, GarPromptError)
            if name == "gar-bench-vqa":
                text = f"Question: {entry['question']}\nOptions:"
                text += "".join(f"\n{choice}" for choice in entry["choices"])
                text += "\nAnswer with the correct option's letter directly."
            elif name == "gar-bench-caption-detailed":
                text = "Describe <Prompt0> in detail, including the relationship with <Prompt1>."
            else:
                text = entry["question"]
            numbers = list(range(len(entry["mask_rles"])))
            known = numbers[:5]
            ids = prompts.build(read_question(field), known, 3, beyond=len(numbers) - len(known))
            tokens = gar.manifest.dimensions.tile_tokens
            assert ids.tolist() == reference.prompt(text, numbers, 3, tokens), item.image
            seen += 1
    assert seen >= 60


def test_as_released_every_region_has_the_last_ones_box(nano: Gar, tmp_path: Path) -> None:
    entries = multiple_choice(tmp_path, 3, regions=3)
    last = coco.decode(entries[0]["mask_rles"][-1]).astype(bool)
    y, x = np.nonzero(last)
    height, width = SIZE
    box = (x.min() / width, y.min() / height, x.max() / width, y.max() / height)
    item = VQA.read(tmp_path)[0]
    asked = prepare_as_released(nano, tmp_path, Options(max_new_tokens=4), item.job)
    assert asked.request.regions.boxes == (pytest.approx(box),) * 3
    right = json.loads(run_task(VQA, nano, tmp_path, tmp_path / "out", max_new_tokens=4).answers.read_text())
    wrong = run_task(VQA, nano, tmp_path, tmp_path / "out", as_released=True, max_new_tokens=4)
    assert wrong.answers.name == "gar-bench-vqa-as-released.json"
    assert [entry["model_output"] for entry in json.loads(wrong.answers.read_text())] == [
        answer.text for _, answer in sorted(
            answer_side_by_side(
                nano.scheduler,
                map(partial(prepare_as_released, nano, tmp_path, Options(max_new_tokens=4)),
                    [one.job for one in VQA.read(tmp_path)]),
            )
        )
    ]  # fmt: skip
    assert len(right) == 3


def test_as_released_a_question_about_one_region_is_as_ever(nano: Gar, tmp_path: Path) -> None:
    multiple_choice(tmp_path, 3, regions=1)
    options = {"max_new_tokens": 4}
    right = json.loads(run_task(VQA, nano, tmp_path, tmp_path / "out", **options).answers.read_text())
    same = json.loads(run_task(VQA, nano, tmp_path, tmp_path / "out", as_released=True, **options).answers.read_text())
    assert right == same


def test_as_released_more_regions_than_the_model_has_tokens_for_are_named(nano: Gar, tmp_path: Path) -> None:
    multiple_choice(tmp_path, 1, regions=7)
    done = run_task(VQA, nano, tmp_path, tmp_path / "out", as_released=True, max_new_tokens=2)
    (error,) = done.failed.values()
    assert "reserved_special_token_7" in error
    assert "<Prompt5>" in error


def test_nanos_exam_is_questions_of_ones_own(nano: Gar, tmp_path: Path) -> None:
    count = write_questions(tmp_path, 1, range(4))
    task = task_of("regions")
    items = task.read(tmp_path)
    assert len(items) == count
    done = run_task(task, nano, tmp_path, tmp_path / "out")
    found = score(task, tmp_path, done.answers)
    assert found.missing == 0
    assert found.figures["accuracy"] > 0.8
    assert {"colour", "describe", "choice"} <= set(found.kinds)
    assert write_questions(tmp_path / "few", 1, range(4), each=3) == 12


def test_killed_runs_answer_each_question_exactly_once(tmp_path: Path) -> None:
    entries = multiple_choice(tmp_path, 60)
    command = [sys.executable, "-m", "gar_edge.runtime.cli.evaluate", "run", "gar-bench-vqa", "--data", str(tmp_path)]
    command += ["-m", str(SHIPPED), "--out", str(tmp_path / "out"), "--max-new-tokens", "6"]
    lines, rng = tmp_path / "out/gar-bench-vqa.jsonl", random.Random(3)
    for kill in (True, True, False):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if kill:
            before = lines.stat().st_size if lines.is_file() else 0
            while process.poll() is None and (not lines.is_file() or lines.stat().st_size == before):
                time.sleep(0.01)
            time.sleep(rng.random() / 10)
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    keys = [json.loads(line)["job"] for line in lines.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == len(entries)
    assert len(json.loads((tmp_path / "out/gar-bench-vqa.json").read_text())) == len(entries)
