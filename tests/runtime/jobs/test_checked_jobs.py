"""Jobs that say what their answers must be like: choices, structures, probabilities."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.examples import COLOUR

from gar_edge.runtime import Choosing, Gar, GarPromptError, Options
from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.generate.guide import Matcher
from gar_edge.runtime.jobs.job import JobSettings, read_jobs
from gar_edge.runtime.jobs.log import JobLog
from gar_edge.runtime.jobs.run import run_jobs
from gar_edge.runtime.regions import box_mask

SCENE = {"image": "examples/scene_1.png", "regions": [{"mask": "examples/scene_1_mask_0.png"}]}


def answered(job: dict[str, Any], tmp_path: Path, options: Options) -> dict[str, Any]:
    """The line of one job about the first example on gar-nano."""
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps([job]))
    with JobLog(tmp_path / "answers.jsonl") as log:
        run_jobs(read_jobs(path), log, Gar.load(SHIPPED), JobSettings(Path.cwd(), options, box_mask, None))
    return json.loads((tmp_path / "answers.jsonl").read_text())


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"choose": ["red", "pink"]}, "pink"),
        ({"choose": ["red", "blue", "green"], "abstain_below": 0.999}, None),
        ({"schema": {"properties": {"colour": {"const": "pink"}}, "required": ["colour"], "type": "object"}},
         {"colour": "pink"}),
        ({"regex": "[a-z]{4}"}, "pink"),
        ({"grammar": 'start: "pink" | "red"'}, "pink"),
    ],
)  # fmt: skip
def test_jobs_say_what_their_answers_must_be_like(fields: dict[str, Any], value: object, tmp_path: Path) -> None:
    line = answered({**SCENE, "question": COLOUR, **fields}, tmp_path, Options(max_new_tokens=40))
    assert line["value"] == value
    if "choose" in fields:
        assert sum(choice["probability"] for choice in line["choices"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("choices", "letters"),
    [(["red", "green", "pink"], "ABC"), (["A. red", "B. green"], "AB"), ({"B": "red", "D": "pink"}, "BD")],
)
def test_jobs_choose_among_the_letters_of_their_choices(choices: object, letters: str, tmp_path: Path) -> None:
    line = answered({**SCENE, "question": COLOUR, "choices": choices, "choose": True}, tmp_path, Options())
    assert [one["text"] for one in line["choices"]] == list(letters)
    assert line["value"] == max(line["choices"], key=lambda one: one["probability"])["text"]


def test_a_jobs_own_wish_goes_before_that_of_all(tmp_path: Path) -> None:
    every = Options(choosing=Choosing(("yes", "no")), logprobs=1)
    line = answered({**SCENE, "question": COLOUR, "regex": "[a-z]{4}", "logprobs": 3}, tmp_path, every)
    assert line["value"] == "pink"
    assert [len(one["likeliest"]) for one in line["logprobs"]] == [3]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"choose": "red"}, "choose is"),
        ({"choose": ["red"]}, "two choices or more"),
        ({"choose": []}, "two choices or more"),
        ({"abstain_below": 0.9}, "abstain_below and normalise go with it"),
        ({"choose": ["red", 7]}, r"choose\[1\] is 7"),
        ({"choose": True}, "choices is missing"),
        ({"choose": ["red", "pink"], "abstain_below": 2}, "abstain_below is 2"),
        ({"choose": ["red", "pink"], "normalise": "chars"}, "normalise is"),
        ({"schema": "object"}, "schema is"),
        ({"schema": {"not": {}}}, "not"),
        ({"regex": "("}, "unclosed group"),
        ({"logprobs": -1}, "logprobs is -1"),
        ({"choose": ["red", "pink"], "regex": "a"}, "not both"),
    ],
)
def test_jobs_whose_answers_cannot_be_so_fail_alone(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    line = answered({**SCENE, "question": COLOUR, **fields}, tmp_path, Options(max_new_tokens=10))
    assert re.search(message, line["error"])


def test_a_structure_that_fails_on_the_way_is_its_own_jobs_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(self: Matcher, token: int) -> None:
        raise GarPromptError("given up")

    monkeypatch.setattr(Matcher, "take", give_up)
    jobs = [{**SCENE, "question": COLOUR, "id": 1}, {**SCENE, "question": COLOUR, "id": 2, "regex": "a+"}]
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps([*jobs, {**SCENE, "id": 3}]))
    with JobLog(tmp_path / "answers.jsonl") as log:
        settings = JobSettings(Path.cwd(), Options(max_new_tokens=4), box_mask, None)
        tally = run_jobs(read_jobs(path), log, Gar.load(SHIPPED), settings)
    assert (tally.done, tally.failed) == (3, 1)
    lines = {line["id"]: line for line in map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())}
    assert lines[2]["error"] == "given up"
    assert lines[1]["text"] == "pink"
