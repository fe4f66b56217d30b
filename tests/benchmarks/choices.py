"""What choosing by probability is worth on gar-nano: right answers, calibration, abstention, as text, JSON and a plot.

    python tests/benchmarks/choices.py -m NANO --scenes 600 --plot docs/reliability.png

Questions of freshly drawn scenes (none of which gar-nano was trained on) whose answer is one of a few words are asked
twice: as free text, greedily, and by `Options.choosing` among these words. Expected calibration error: the mean
distance between probability and share of right answers over ten bins of probability, weighted by what falls into each.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw

from gar_edge.models.nano import exam, wording
from gar_edge.models.nano.exam import Question
from gar_edge.models.nano.tasks import VALUES
from gar_edge.runtime import Choice, Choosing, Gar, Options
from gar_edge.runtime.generate.side_by_side import Asked, answer_side_by_side

BINS = 10
YES_NO = ("same_colour", "same_shape", "overlap")
SURE = 0.9
PANEL, EDGE = 260, 40
RELATIONS = {"left_right": ("left", "right"), "above_below": ("above", "below"), "larger": ("larger", "smaller")}


@dataclass(frozen=True)
class Outcome:
    """One question: whether free text and the choice were right, and the choice's probability."""

    free: bool
    chosen: bool
    probability: float


def choices(question: Question) -> Sequence[str] | None:
    """The words that may answer; None where there are too many to list."""
    task = question.turn.task
    if task in VALUES:
        return VALUES[task]
    if task in RELATIONS:
        return RELATIONS[task]
    if task in YES_NO:
        return ("yes", "no")
    if task in ("which", "extreme"):
        return wording.ORDINALS[: len(question.masks)]
    if task == "choice":
        lines = (question.turn.question or "").splitlines()
        return [letter for letter in wording.LETTERS if any(line.startswith(f"{letter}. ") for line in lines)]
    return None


def ask(gar: Gar, seed: int, scenes: range) -> dict[str, list[Outcome]]:
    """Every question of these scenes, both ways, side by side."""
    asked: list[tuple[Question, bool]] = []

    def requests() -> Iterator[Asked]:
        for index in scenes:
            questions = exam.scene(seed, index)
            scene = gar.open(questions[0].scene.image)
            for question in questions:
                words = choices(question)
                if words is None:
                    continue
                masks = dict(sorted(question.masks.items()))
                for options in (Options(max_new_tokens=16), Options(choosing=Choosing(words))):
                    asked.append((question, options.choosing is not None))
                    yield scene.prepare(question.turn.question, masks, options=options)

    answers = dict(answer_side_by_side(gar.scheduler, requests()))
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    for number in range(0, len(asked), 2):
        turn, free, choice = asked[number][0].turn, answers[number], answers[number + 1]
        assert isinstance(choice, Choice)
        assert choice.likeliest is not None
        outcomes[turn.task].append(
            Outcome(free.text.strip() == turn.answer, choice.best == turn.answer, choice.likeliest.probability)
        )
    return dict(outcomes)


def bins(outcomes: Sequence[Outcome]) -> list[tuple[float, float, int]]:
    """Mean probability, share of right answers, and count, of each bin that has any."""
    probability = np.array([one.probability for one in outcomes])
    right = np.array([one.chosen for one in outcomes])
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    return [
        (float(probability[place == n].mean()), float(right[place == n].mean()), int((place == n).sum()))
        for n in range(BINS)
        if (place == n).any()
    ]


def calibration_error(outcomes: Sequence[Outcome]) -> float:
    """Expected calibration error, 0…1."""
    return sum(count * abs(mean - share) for mean, share, count in bins(outcomes)) / len(outcomes)


def report(outcomes: dict[str, list[Outcome]]) -> dict[str, object]:
    """Per task, over all, and for yes/no relations with and without abstaining."""

    def one(some: Sequence[Outcome]) -> dict[str, float]:
        return {
            "questions": len(some),
            "free": round(float(np.mean([it.free for it in some])), 4),
            "chosen": round(float(np.mean([it.chosen for it in some])), 4),
            "calibration_error": round(calibration_error(some), 4),
        }

    relations = [it for task in YES_NO for it in outcomes.get(task, [])]
    sure = [it for it in relations if it.probability >= SURE]
    return {
        "tasks": {task: one(some) for task, some in sorted(outcomes.items())},
        "all": one([it for some in outcomes.values() for it in some]),
        "yes_no": {
            "questions": len(relations),
            "error": round(1 - float(np.mean([it.chosen for it in relations])), 4),
            "answered_when_sure": len(sure),
            "error_when_sure": round(1 - float(np.mean([it.chosen for it in sure])), 4),
        },
    }


def plot(outcomes: dict[str, list[Outcome]], path: Path) -> None:
    """Reliability: share of right answers over probability, and how many answers fall where."""
    groups = {
        "one region": [task for task in VALUES if task in outcomes],
        "letters": ["choice"],
        "two and three regions": [task for task in (*RELATIONS, *YES_NO, "which", "extreme") if task in outcomes],
    }
    image = Image.new("RGB", (len(groups) * (PANEL + EDGE) + EDGE, PANEL + 2 * EDGE), "white")
    pen = ImageDraw.Draw(image)
    for place, (name, tasks) in enumerate(groups.items()):
        some = [it for task in tasks for it in outcomes.get(task, [])]
        left, bottom = EDGE + place * (PANEL + EDGE), EDGE + PANEL
        pen.rectangle((left, EDGE, left + PANEL, bottom), outline="#888888")
        pen.line((left, bottom, left + PANEL, EDGE), fill="#bbbbbb")
        pen.text((left, 12), f"{name}: {len(some)} questions, error {calibration_error(some):.1%}", fill="#222222")
        for tick in (0, 50, 100):
            pen.text((left + PANEL * tick // 100 - 8, bottom + 6), f"{tick} %", fill="#222222")
        for mean, share, count in bins(some):
            x, y = left + mean * PANEL, bottom - share * PANEL
            radius = 3 + 9 * (count / len(some)) ** 0.5
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill="#3b6fb6")
    pen.text(
        (EDGE, PANEL + 2 * EDGE - 14),
        "across: probability of the choice; up: share right; a dot's area: how many",
        fill="#222222",
    )
    image.save(path)


def main(
    model: Annotated[Path, typer.Option("-m", "--model", help="A gar-nano bundle.")],
    scenes: Annotated[int, typer.Option(min=1)] = 600,
    seed: int = 2028,
    plot_to: Annotated[Path | None, typer.Option("--plot", help="Where the reliability plot goes (PNG).")] = None,
) -> None:
    """Ask, print the report as JSON, and draw."""
    with Gar.load(model) as gar:
        outcomes = ask(gar, seed, range(scenes))
    print(json.dumps(report(outcomes), indent=1))
    if plot_to is not None:
        plot(outcomes, plot_to)


if __name__ == "__main__":
    typer.run(main)
