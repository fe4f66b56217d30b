"""The curves of a training run, from its log."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from gar_edge.models.nano.tasks import ONE_REGION
from gar_edge.models.nano.wording import RELATIONS

WIDTH, HEIGHT, EDGE = 720, 300, 34
GROUPS: dict[str, tuple[tuple[str, ...], str]] = {
    "one region": (ONE_REGION, "blue"),
    "two regions": (tuple(RELATIONS), "red"),
    "choice": (("choice",), "green"),
    "describe": (("describe",), "purple"),
}


def read(log: Path) -> list[dict[str, Any]]:
    """The records of a run's log."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def curves(records: Sequence[dict[str, Any]]) -> Image.Image:
    """Right answers on fresh scenes (0 to 100 %) by group over the steps, and the answer loss (black, 0 to 2)."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    last = max(record["step"] for record in records)
    for percent in range(0, 101, 25):
        y = _y(percent / 100)
        draw.line([(EDGE, y), (WIDTH - 8, y)], fill="lightgrey")
        draw.text((4, y - 6), f"{percent} %", fill="black")
    for before, record in itertools.pairwise(records):
        if record["phase"] != before["phase"]:
            x = _x(before["step"], last)
            draw.line([(x, 8), (x, HEIGHT - 22)], fill="grey")
            draw.text((x + 3, HEIGHT - 34), record["phase"], fill="grey")
    for number, (name, (tasks, colour)) in enumerate(GROUPS.items()):
        points = []
        for record in records:
            hits = [record["hits"][task] for task in tasks if task in record["hits"]]
            if hits:
                points.append((_x(record["step"], last), _y(sum(hits) / len(hits))))
        _curve(draw, points, colour)
        draw.text((EDGE + 120 * number, HEIGHT - 14), name, fill=colour)
    losses = [(r["step"], min(r["answer"], 2.0)) for r in records if r["answer"]]
    _curve(draw, [(_x(step, last), _y(loss / 2)) for step, loss in losses], "black")
    draw.text((EDGE + 120 * len(GROUPS), HEIGHT - 14), f"answer loss (0 to 2); {last} steps", fill="black")
    return image


def _curve(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: str) -> None:
    if len(points) > 1:
        draw.line(points, fill=colour, width=1)


def _x(step: int, last: int) -> float:
    return EDGE + (WIDTH - EDGE - 8) * step / last


def _y(share: float) -> float:
    return 8 + (HEIGHT - 34) * (1 - share)
