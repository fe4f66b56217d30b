"""Marks: word for word where a task has right answers, by the judge's files of the released evaluations elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.evaluate.captions import DLC, FERRET
from gar_edge.runtime.evaluate.gar_bench import OUTPUT
from gar_edge.runtime.evaluate.run import read_answers, trimmed
from gar_edge.runtime.evaluate.task import Item, Task

MARK = "eval_result"  # of GAR-Bench's judge: "True" or "False"


class NotMarkedError(GarPromptError):
    """The answers are whole, and only a judge can mark them."""


@dataclass(frozen=True)
class Score:
    """A task's figures.

    marks: of each item, 0 to 1, None where it has no answer or no mark. figures: what is published, by name. kinds:
    mean mark and count by kind. answers: as they were given.
    """

    task: str
    marks: tuple[float | None, ...]
    figures: Mapping[str, float]
    kinds: Mapping[str, tuple[float, int]]
    answers: tuple[str | None, ...]
    judged: bool = False
    published: Mapping[str, float] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """How many have no mark."""
        return sum(mark is None for mark in self.marks)

    def to_json(self) -> dict[str, Any]:
        """Figures, kinds, counts."""
        return {
            "task": self.task,
            "questions": len(self.marks),
            "missing": self.missing,
            "judged": self.judged,
            "figures": {name: round(value, 6) for name, value in self.figures.items()},
            "kinds": {kind: {"mean": round(mean, 6), "count": count} for kind, (mean, count) in self.kinds.items()},
            "published": dict(self.published),
        }


def score(task: Task, data: Path, file: Path) -> Score:
    """A file of answers, or of a judge's marks; `GarPromptError` where the file is neither, or not of this task."""
    items = task.read(data)
    if task is FERRET and file.suffix == ".jsonl":
        return _ferret(task, items, file)
    answers = read_answers(task, items, file)
    content = json.loads(file.read_text("utf-8-sig"))
    if task is DLC and any(isinstance(entry, dict) for entry in content.values()):
        return _dlc(task, items, content, answers)
    judged = isinstance(content, list) and any(MARK in entry for entry in content)
    if judged:
        try:
            marks = _by_item(task, items, content)
        except GarPromptError as error:
            raise GarPromptError(f"{file}: {error}") from None
    elif all(item.truth is not None for item in items):
        marks = [
            None if answer is None else float(trimmed(answer) == trimmed(item.truth or ""))
            for item, answer in zip(items, answers, strict=True)
        ]
    else:
        raise NotMarkedError(
            f"{file}: {task.name} has no answers that are right word for word; have them judged by the benchmark's own "
            "script, and score what it writes"
        )
    return _score(task, items, marks, answers, {"accuracy": _mean(marks)}, judged=judged)


def _by_item(task: Task, items: Sequence[Item], content: list[dict[str, Any]]) -> list[float | None]:
    """The judge's marks, found as answers are: put where these stand."""
    marked = [{**entry, OUTPUT: str(entry[MARK])} for entry in content if MARK in entry]
    return [None if mark is None else _verdict(mark) for mark in task.unpack(items, marked)]


def _verdict(mark: str) -> float:
    text = mark.strip().casefold()
    if text not in ("true", "false"):
        raise GarPromptError(f"{MARK} must be True or False, not {mark!r}")
    return float(text == "true")


def _dlc(task: Task, items: Sequence[Item], content: dict[str, Any], answers: list[str | None]) -> Score:
    """Two marks a description: for what it says and should, and for what it does not say and should not."""
    sides: dict[str, list[float | None]] = {}
    for name in ("score_pos", "score_neg"):
        sides[name] = [_number(content.get(item.entry), name) for item in items]
    positive, negative = _mean(sides["score_pos"]), _mean(sides["score_neg"])
    marks = [
        None if one is None or other is None else (one + other) / 2
        for one, other in zip(sides["score_pos"], sides["score_neg"], strict=True)
    ]
    figures = {"positive": positive, "negative": negative, "average": (positive + negative) / 2}
    return _score(task, items, marks, answers, figures, judged=True)


def _number(entry: Any, name: str) -> float | None:
    value = entry.get(name) if isinstance(entry, dict) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise GarPromptError(f"{name} must be a number, not {value!r}")
    return float(value)


def _ferret(task: Task, items: Sequence[Item], file: Path) -> Score:
    """Reviews: `tuple` has the judge's marks of the reference and of the model; the figure is their sums' ratio."""
    try:
        reviews = [json.loads(line) for line in file.read_text("utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise GarPromptError(f"{file}: cannot be read ({' '.join(str(error).split())})") from None
    places = {item.entry["question_id"]: place for place, item in enumerate(items)}
    ratios: list[float | None] = [None] * len(items)
    answers: list[str | None] = [None] * len(items)
    sums = [0.0, 0.0]
    for number, review in enumerate(reviews, 1):
        id = review.get("question_id") if isinstance(review, dict) else None
        place = places.get(id) if isinstance(id, int) else None
        if place is None:
            raise GarPromptError(f"{file}: line {number} reviews no question of this task")
        pair = review.get("tuple")
        if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_mark, pair)):
            raise GarPromptError(f"{file}: line {number} has no tuple of two marks")
        if ratios[place] is not None:
            raise GarPromptError(f"{file}: line {number} reviews a question twice")
        if min(pair) < 0 or pair[0] <= 0:  # how the judge's script says that it found no marks
            continue
        sums = [sums[0] + pair[0], sums[1] + pair[1]]
        ratios[place] = pair[1] / pair[0]
        answers[place] = str(review.get("answer2", ""))
    figures = {"ratio": 100 * sums[1] / sums[0] if sums[0] else 0.0}
    return _score(task, items, ratios, answers, figures, judged=True)


def _is_mark(mark: object) -> bool:
    return isinstance(mark, (int, float)) and not isinstance(mark, bool) and math.isfinite(mark)


def _score(
    task: Task,
    items: Sequence[Item],
    marks: Sequence[float | None],
    answers: Sequence[str | None],
    figures: Mapping[str, float],
    *,
    judged: bool,
) -> Score:
    if all(mark is None for mark in marks):
        raise GarPromptError(f"there is nothing to mark for {task.name}: no question has an answer")
    kinds: dict[str, list[float]] = {}
    for item, mark in zip(items, marks, strict=True):
        if mark is not None:
            kinds.setdefault(item.kind, []).append(mark)
    by_kind = {kind: (_mean(some), len(some)) for kind, some in sorted(kinds.items())}
    return Score(task.name, tuple(marks), figures, by_kind, tuple(answers), judged, task.published)


def _mean(marks: Iterable[float | None]) -> float:
    known = [mark for mark in marks if mark is not None]
    return sum(known) / len(known) if known else 0.0
