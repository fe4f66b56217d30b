"""gar-nano end to end: the shipped weights, exported and asked about scenes that they were never trained on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gar_edge.models.nano import evaluation, exam
from gar_edge.models.nano.evaluation import FACTS, SWAP, Result

SEED, SCENES = 7, 8


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nano") / "bundle"
    command = [sys.executable, "-m", "gar_edge.export.cli", "--size", "nano", "--no-validate", "-o", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def result(nano: Path) -> Result:
    return evaluation.evaluate(nano, SEED, range(SCENES))


def test_what_it_knows(result: Result) -> None:
    """Far above chance on everything that models/nano/README.md says it knows well; few questions, so loose bounds."""
    accuracy = result.report()["accuracy"]
    well = ("colour", "shape", "fill", "size", "place", "larger", "left_right", "above_below", "same_colour", "overlap")
    right = sum(result.right[task] for task in well)
    assert right / sum(result.asked[task] for task in well) > 0.9
    assert accuracy["choice"] > 0.7  # chance: 0.29
    assert accuracy[FACTS] > 0.8
    assert accuracy[SWAP] > 0.6  # chance at most 0.25


def test_every_question_is_counted_once(result: Result) -> None:
    questions = [question for index in range(SCENES) for question in exam.scene(SEED, index)]
    counted = {task: count for task, count in result.report()["count"].items() if task not in (FACTS, SWAP)}
    assert sum(counted.values()) == len(questions) == len(result.answers) == len(result.milliseconds)
    assert result.asked[SWAP] == sum(question.swapped is not None for question in questions)
    assert result.asked[FACTS] == 7 * result.asked["describe"]


def test_regions_are_told_apart_by_replay(nano: Path, result: Result) -> None:
    without = evaluation.evaluate(nano, SEED, range(SCENES), zero_replay=True)
    assert without.report()["accuracy"][SWAP] < result.report()["accuracy"][SWAP] - 0.15
    assert evaluation.agreement(result, without) < 0.9


def test_the_command_says_the_same(nano: Path, result: Result) -> None:
    command = [sys.executable, "-m", "gar_edge.models.nano", "evaluate", "--model", str(nano), "--seed", str(SEED)]
    command += ["--count", str(SCENES), "--json", "--against", str(nano)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    expected = result.report()
    assert found["accuracy"] == expected["accuracy"]
    assert found["count"] == expected["count"]
    assert found["agreement"] == 1
