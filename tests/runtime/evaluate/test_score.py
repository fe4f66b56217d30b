"""Marks: the released answers and judgements give the published figures; bad files are refused by name."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bench_data import captions, multiple_choice

from gar_edge.runtime import GarPromptError
from gar_edge.runtime.evaluate.score import Score, score
from gar_edge.runtime.evaluate.tasks import TASKS, task_of

BENCH = Path(os.environ.get("GAR_EDGE_BENCH", Path(__file__).parents[4] / "shared" / "bench"))
released = pytest.mark.skipif(
    not BENCH.is_dir(), reason="the released benchmarks are not here (GAR_EDGE_BENCH names their folder)"
)
FILES = {
    "gar-bench-vqa": ("gar-bench", "gar_1b_vqa.json"),
    "gar-bench-caption-simple": ("gar-bench", "gar_1b_simple_eval.json"),
    "gar-bench-caption-detailed": ("gar-bench", "gar_1b_detailed_eval.json"),
    "dlc-bench": ("dlc-bench", "gar_1b_eval.json"),
    "ferret-bench": ("ferret-bench", "gar_1b_review.jsonl"),
}


def of_released(name: str) -> Score:
    folder, file = FILES[name]
    return score(task_of(name), BENCH / folder, BENCH / folder / file)


@released
def test_gar_1b_s_answers_give_the_published_multiple_choice_figures() -> None:
    found = of_released("gar-bench-vqa")
    assert sum(mark or 0 for mark in found.marks) == 203
    right = {kind: (round(mean * count), count) for kind, (mean, count) in found.kinds.items()}
    assert right == {
        "color": (34, 69), "texture/pattern": (17, 29), "mirror": (36, 61), "ordering": (13, 64), "material": (14, 36),
        "shape": (32, 64), "relation": (57, 101),
    }  # fmt: skip
    assert found.missing == 0


@released
@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("gar-bench-caption-simple", {"accuracy": 0.5567}),
        ("gar-bench-caption-detailed", {"accuracy": 0.6636}),
        ("dlc-bench", {"positive": 0.489, "negative": 0.870, "average": 0.679}),
        ("ferret-bench", {"ratio": 56.0}),
    ],
)
def test_the_judgements_of_gar_1b_give_the_published_figures(name: str, figures: dict[str, float]) -> None:
    found = of_released(name)
    assert found.judged
    assert found.missing == 0
    for figure, value in figures.items():
        assert found.figures[figure] == pytest.approx(value, rel=1e-3), figure


@pytest.mark.parametrize("size", [2, 7])
def test_answers_are_marked_word_for_word_ignoring_case_and_the_end_token(tmp_path: Path, size: int) -> None:
    entries = multiple_choice(tmp_path, size)
    said = ["a", "B", " A <|eot_id|>\n", "a<|eot_id|>", "C", "", "A."][:size]
    answers = [{**entry, "model_output": text} for entry, text in zip(entries, said, strict=True)]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    found = score(task_of("gar-bench-vqa"), tmp_path, tmp_path / "answers.json")
    assert list(found.marks) == [1, 0, 1, 1, 0, 0, 0][:size]


def test_what_lacks_an_answer_is_counted(tmp_path: Path) -> None:
    entries = multiple_choice(tmp_path, 5)
    answers = [{**entry, "model_output": "A"} for entry in entries[1:4]]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    found = score(task_of("gar-bench-vqa"), tmp_path, tmp_path / "answers.json")
    assert (found.missing, found.figures["accuracy"]) == (2, 1.0)
    assert found.marks == (None, 1.0, 1.0, 1.0, None)


def test_a_judges_file_may_have_holes(tmp_path: Path) -> None:
    entries = captions(tmp_path, 4)
    marks: list[dict[str, Any]] = [{"eval_result": "True"}, {"eval_result": "False"}, {}, {"eval_result": True}]
    judged = [{**entry, "model_output": "words", **mark} for entry, mark in zip(entries, marks, strict=True)]
    (tmp_path / "judged.json").write_text(json.dumps(judged))
    found = score(task_of("gar-bench-caption-simple"), tmp_path, tmp_path / "judged.json")
    assert found.marks == (1.0, 0.0, None, 1.0)
    assert (found.missing, found.figures["accuracy"]) == (1, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answers: {"a": answers}, "list of objects"),
        (lambda answers: [*answers, answers[0]], "twice"),
        (lambda answers: [{**answers[0], "question": "Another?"}], "no question of this task"),
        (lambda answers: [{**answers[0], "mask_rles": []}], "no question of this task"),
        (lambda answers: [{**answers[0], "model_output": None}], "has no model_output"),
        (lambda answers: ["A"], "list of objects"),
    ],
)
def test_answers_of_something_else_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    entries = multiple_choice(tmp_path, 3)
    answers = [{**entry, "model_output": "A"} for entry in entries]
    (tmp_path / "answers.json").write_text(json.dumps(change(answers)))
    with pytest.raises(GarPromptError, match=message):
        score(task_of("gar-bench-vqa"), tmp_path, tmp_path / "answers.json")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    captions(tmp_path, 2)
    for content, message in (("{", "cannot be read"), ("[]", "judged by the benchmark's own script")):
        (tmp_path / "answers.json").write_text(content)
        with pytest.raises(GarPromptError, match=message):
            score(task_of("gar-bench-caption-simple"), tmp_path, tmp_path / "answers.json")
    with pytest.raises(GarPromptError, match=r"GAR-Bench-VQA\.json: cannot be read"):
        score(task_of("gar-bench-vqa"), tmp_path, tmp_path / "answers.json")
    with pytest.raises(GarPromptError, match="there are gar-bench-vqa, "):
        task_of("gar-bench")


@released
@pytest.mark.parametrize("name", list(FILES))
def test_the_released_files_are_unpacked_and_packed_as_they_were(name: str) -> None:
    """Answers in their places: what is packed from the answers read equals what the released code wrote."""
    folder, file = FILES[name]
    answers = BENCH / folder / file.replace("_eval", "").replace("_review.jsonl", ".json")
    task, packed = TASKS[name], json.loads(answers.read_text())
    items = task.read(BENCH / folder)
    again = task.pack(items, task.unpack(items, packed))
    if name == "ferret-bench":  # whose paths run a folder and a name together
        packed = [{**entry, "image_path": entry["image_path"][-16:]} for entry in packed]
    assert again == packed


@released
@pytest.mark.parametrize(
    "name", ["gar-bench-vqa", "gar-bench-caption-simple", "gar-bench-caption-detailed", "dlc-bench"]
)
def test_every_mask_is_what_pycocotools_decodes(name: str) -> None:
    from pycocotools import mask as coco

    from gar_edge.runtime.regions.files import entry_regions, in_folder

    folder, _ = FILES[name]
    for item in TASKS[name].read(BENCH / folder):
        field = item.job.field
        assert not isinstance(field, GarPromptError)
        runs = field.value.get("mask_rles") or field.value["regions"]
        for (_, region), one in zip(entry_regions(field, in_folder(BENCH / folder)).items(), runs, strict=True):
            height, width = one["size"]
            np.testing.assert_array_equal(region.draw(width, height), coco.decode(one).astype(bool))


def ferret(folder: Path, count: int) -> list[dict[str, Any]]:
    """box_refer_caption.json."""
    entries = [
        {"question_id": place, "image": f"{place:012}.jpg", "text": "What is it?",
         "annotation": {"segmentation": [[1.0, 1.0, 9.0 + place, 1.0, 9.0, 9.0, 1.0, 9.0]]}}
        for place in range(count)
    ]  # fmt: skip
    (folder / "box_refer_caption.json").write_text(json.dumps(entries))
    return entries


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_id": [1]}, "no question of this task"),
        ({"question_id": 9}, "no question of this task"),
        ({"tuple": [8]}, "tuple of two marks"),
        ({"tuple": [8, "7"]}, "tuple of two marks"),
        ({"tuple": [8, math.nan]}, "tuple of two marks"),
        ({"question_id": 1}, "reviews a question twice"),
    ],
)
def test_reviews_that_are_none_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    ferret(tmp_path, 3)
    reviews = [{"question_id": place, "tuple": [8, 6]} for place in range(2)]
    file = tmp_path / "review.jsonl"
    file.write_text("\n".join(map(json.dumps, [*reviews, {"question_id": 2, "tuple": [5, 6]} | change])))
    with pytest.raises(GarPromptError, match=f"line 3 .*{message}"):
        score(task_of("ferret-bench"), tmp_path, file)


def test_reviews_without_a_mark_are_holes(tmp_path: Path) -> None:
    ferret(tmp_path, 3)
    reviews = [
        {"question_id": 0, "tuple": [8, 6]},
        {"question_id": 1, "tuple": [-1, -1]},
        {"question_id": 2, "tuple": [4, 8]},
    ]
    (tmp_path / "review.jsonl").write_text("\n".join(map(json.dumps, reviews)))
    found = score(task_of("ferret-bench"), tmp_path, tmp_path / "review.jsonl")
    assert (found.missing, found.figures["ratio"]) == (1, pytest.approx(100 * 14 / 12))


def test_marks_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    entries = captions(tmp_path, 2)
    judged = [{**entry, "model_output": "words", "eval_result": "Maybe"} for entry in entries]
    (tmp_path / "judged.json").write_text(json.dumps(judged))
    with pytest.raises(GarPromptError, match=r"judged\.json: eval_result must be True or False, not 'Maybe'"):
        score(task_of("gar-bench-caption-simple"), tmp_path, tmp_path / "judged.json")
