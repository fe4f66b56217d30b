"""Box prompts on gar-nano's held-out scenes: masks and answers beside those of the exact masks, per background.

    python tests/benchmarks/box_prompts.py --scenes 200 --model nano-bundle

Every region that a scene's questions are about is given as the box around its exact mask. `IoU` is the mean of
intersection over union with the exact mask; `right` is the share of questions answered right, of all tasks alike.
Without --model only the masks are measured.
"""

from __future__ import annotations

import json
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gar_edge.models.nano import exam
from gar_edge.models.nano.scenes import BACKGROUNDS
from gar_edge.runtime import Box, Gar, Scene
from gar_edge.runtime.regions import Mask, box_mask, grabcut

EXACT, CUT, WHOLE = "exact mask", "GrabCut", "box itself"
SEGMENTERS = {CUT: grabcut, WHOLE: box_mask}


@dataclass
class Figures:
    """What was measured on the scenes of one background. Keys are the names of the masks' sources."""

    scenes: int = 0
    overlap: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    right: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    questions: int = 0
    cut_ms: list[float] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """Plain numbers: counts, mean IoU, accuracy and its share of the exact masks'."""
        accuracy = {name: self.right[name] / self.questions for name in self.right}
        return {
            "scenes": self.scenes,
            "regions": len(self.overlap[CUT]),
            "questions": self.questions,
            "iou": {name: round(float(np.mean(found)), 4) for name, found in self.overlap.items()},
            "accuracy": {name: round(share, 4) for name, share in accuracy.items()},
            "of_exact": {
                name: round(share / accuracy[EXACT], 4) for name, share in accuracy.items() if accuracy.get(EXACT)
            },
            "cut_ms": round(float(np.median(self.cut_ms)), 1),
        }


def around(mask: Mask) -> Box:
    """The tightest box that holds a mask [H,W]."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def measure(seed: int, scenes: Iterable[int], gar: Gar | None) -> dict[str, Figures]:
    """Figures per background of the exam's scenes of these numbers."""
    found = {background: Figures() for background in BACKGROUNDS}
    for index in scenes:
        questions = exam.scene(seed, index)
        scene = questions[0].scene
        assert scene.background is not None
        figures = found[scene.background]
        figures.scenes += 1
        masks: dict[int, dict[str, Mask]] = {}  # by the exact mask's identity
        for exact in (mask for question in questions for mask in question.masks.values()):
            if id(exact) not in masks:
                masks[id(exact)] = _masks(scene.image, exact, figures)
        if gar is not None:
            opened = gar.open(scene.image)
            for question in questions:
                _ask(opened, question, masks, figures)
    return found


def _masks(image: np.ndarray[Any, np.dtype[np.uint8]], exact: Mask, figures: Figures) -> dict[str, Mask]:
    masks = {EXACT: exact}
    for name, segment in SEGMENTERS.items():
        begin = time.perf_counter()
        masks[name] = segment(image, around(exact))
        if name == CUT:
            figures.cut_ms.append((time.perf_counter() - begin) * 1e3)
        figures.overlap[name].append(float((masks[name] & exact).sum() / (masks[name] | exact).sum()))
    return masks


def _ask(scene: Scene, question: exam.Question, masks: Mapping[int, Mapping[str, Mask]], figures: Figures) -> None:
    figures.questions += 1
    for name in (EXACT, *SEGMENTERS):
        regions = {number: masks[id(exact)][name] for number, exact in question.masks.items()}
        answer = scene.stream(question.turn.question, regions).finish().text.strip()
        figures.right[name] += answer == question.turn.answer


def main(
    scenes: Annotated[int, typer.Option(min=1, help="Number of scenes.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes; 1 is the evaluation's.")] = 1,
    model: Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="A bundle of gar-nano.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Mean IoU and accuracy of box prompts."""
    warnings.simplefilter("ignore")  # boxes in which nothing stands out are part of the figure
    numbers = track(range(scenes), "scenes", console=Console(stderr=True), transient=True)
    reports = {
        name: one.report()
        for name, one in measure(seed, numbers, Gar.load(model) if model else None).items()
        if one.scenes
    }
    if as_json:
        typer.echo(json.dumps(reports))
        return
    table = Table("background", "scenes", "regions", *(f"IoU, {name}" for name in SEGMENTERS), "ms a cut")
    if model:
        for name in (EXACT, *SEGMENTERS):
            table.add_column(f"right, {name}")
    for background, report in reports.items():
        counts = [str(report["scenes"]), str(report["regions"])]
        overlaps = [f"{report['iou'][name]:.3f}" for name in SEGMENTERS]
        right = [
            f"{100 * share:.1f} % ({100 * report['of_exact'].get(name, 0):.0f} %)"
            for name, share in report["accuracy"].items()
        ]
        table.add_row(background, *counts, *overlaps, str(report["cut_ms"]), *right)
    Console(width=160).print(table)


if __name__ == "__main__":
    typer.run(main)
