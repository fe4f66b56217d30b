"""Puts an exported bundle through an exam: accuracy per task, swapped masks, time per answer. Never imports torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from gar_edge.models.nano import exam, wording
from gar_edge.models.nano.exam import Question
from gar_edge.runtime import Gar
from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.engines.choice import open_backend
from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.generate.side_by_side import Asked, answer_side_by_side
from gar_edge.runtime.images.shape import Extent
from gar_edge.runtime.images.tiling import Grid
from gar_edge.runtime.model.vision import VisionRunner

FACTS = "describe_facts"  # share of a description's attributes that are stated and true
SWAP = "swap"  # both the question and the same with the two masks swapped answered right


@dataclass
class Result:
    """Right answers and questions per task, milliseconds of every answer, and every answer with its question."""

    right: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    asked: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    milliseconds: list[float] = field(default_factory=list)
    answers: list[tuple[Question, str]] = field(default_factory=list)

    def count(self, task: str, right: float, asked: int = 1) -> None:
        """Add to one task."""
        self.right[task] += right
        self.asked[task] += asked

    def report(self) -> dict[str, Any]:
        """`accuracy` (0…1) and `count` per task, and the mean and 95th percentile of milliseconds per answer."""
        times = sorted(self.milliseconds)
        return {
            "accuracy": {task: round(self.right[task] / count, 4) for task, count in sorted(self.asked.items())},
            "count": dict(sorted(self.asked.items())),
            "milliseconds": {
                "mean": round(sum(times) / max(len(times), 1), 1),
                "p95": round(times[int(0.95 * (len(times) - 1))], 1) if times else 0.0,
            },
        }


class ZeroReplay(VisionRunner):
    """Replays nothing: every region's features are zero, so that only the masks in the tiles tell regions."""

    def roi_replay(self, features: Buffer, grid: Grid, boxes: Sequence[Extent]) -> Buffer:
        """Zeros [R,P,C]."""
        replayed = super().roi_replay(features, grid, boxes)
        replayed.write(np.zeros(replayed.shape, replayed.dtype))
        return replayed


def evaluate(model: Path, seed: int, scenes: Iterable[int], *, zero_replay: bool = False) -> Result:
    """Ask everything about the scenes of these numbers, drawn from `seed`, side by side."""
    bundle, engine = open_backend(Bundle.open(model))
    pipeline = Pipeline.of(bundle, engine, ZeroReplay if zero_replay else VisionRunner)
    result, said = Result(), {}
    asked: list[tuple[Question, bool]] = []  # and whether its masks are swapped
    with Gar(pipeline) as gar:
        for number, answer in answer_side_by_side(gar.scheduler, _requests(gar, seed, scenes, asked)):
            said[number] = answer.text.strip()
            if not asked[number][1]:
                result.milliseconds.append(answer.timings_ms.total)
    for number, (question, swapped) in enumerate(asked):
        if not swapped:
            result.answers.append((question, said[number]))
            _mark(result, question, said[number], said.get(number + 1))
    return result


def _requests(gar: Gar, seed: int, scenes: Iterable[int], asked: list[tuple[Question, bool]]) -> Iterator[Asked]:
    """All questions, a pair's with its masks swapped behind it; `asked` notes them in their order."""
    for index in scenes:
        questions = exam.scene(seed, index)
        scene = gar.open(questions[0].scene.image)
        for question in questions:
            asked.append((question, False))
            yield scene.prepare(question.turn.question, dict(sorted(question.masks.items())))
            if question.swapped is not None:
                asked.append((question, True))
                yield scene.prepare(question.turn.question, dict(sorted(question.swap().items())))


def _mark(result: Result, question: Question, answer: str, when_swapped: str | None) -> None:
    turn = question.turn
    right = answer == turn.answer
    result.count(turn.task, right)
    if turn.task == "describe":
        stated, true = wording.parse_description(answer), wording.parse_description(turn.answer)
        result.count(FACTS, sum(stated.get(name) == fact for name, fact in true.items()), len(true))
    elif question.swapped is not None:
        result.count(SWAP, right and when_swapped == question.swapped)


def agreement(one: Result, other: Result) -> float:
    """Share of answers that two bundles give alike to the same questions, 0…1."""
    pairs = list(zip(one.answers, other.answers, strict=True))
    return sum(a == b for (_, a), (_, b) in pairs) / len(pairs)


def table(report: dict[str, Any]) -> Table:
    """The report for a terminal."""
    rows = Table("task", "right", "questions", title=f"{report['milliseconds']['mean']} ms an answer")
    if "agreement" in report:
        rows.title = f"{rows.title}; {100 * report['agreement']:.2f} % of answers as the other bundle's"
    for task, accuracy in report["accuracy"].items():
        rows.add_row(task, f"{100 * accuracy:.1f} %", str(report["count"][task]))
    return rows
