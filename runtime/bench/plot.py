"""A picture of a benchmark: each stage's share of the roof, and how the time to the first token is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, LEFT, ROW, GAP = 900, 230, 22, 18
SHARE, TIME, INK, RAIL = "#3b6fb6", "#d9822b", "#222222", "#e6e6e6"
_SHARES = {"encode": "of its product roof", "prefill": "of its product roof", "decode": "of the read bandwidth"}
_PARTS = ("preprocess", "encode", "replay", "prefill")


def draw(reports: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG with a block of bars for every bundle."""
    blocks = [_bars(report) for report in reports]
    height = sum((len(bars) + 2) * ROW + 2 * GAP for bars in blocks) + GAP
    image = Image.new("RGB", (WIDTH, height), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=14)
    top = GAP
    for report, bars in zip(reports, blocks, strict=True):
        setting = report["setting"]
        title = (
            f"{setting['model']} on {report['machine']['processor']}, {setting['tiles']} tiles, {setting['backend']}"
        )
        pen.text((GAP, top), title, INK, font)
        top += ROW + GAP // 2
        for label, colour, part, text in bars:
            right = WIDTH - LEFT // 2
            pen.text((GAP, top), label, INK, font)
            pen.rectangle((LEFT, top + 2, right, top + ROW - 5), RAIL)
            pen.rectangle((LEFT, top + 2, LEFT + part * (right - LEFT), top + ROW - 5), colour)
            pen.text((right + 8, top), text, INK, font)
            top += ROW
        top += ROW + GAP
    image.save(path, "PNG")


def _bars(report: Mapping[str, Any]) -> list[tuple[str, str, float, str]]:
    """Labels, colours, lengths as fractions, and what is written behind them."""
    bars = []
    for stage, of in _SHARES.items():
        share = report.get(stage, {}).get("share_of_roof")
        if share is not None:
            bars.append((f"{stage}, {of}", SHARE, min(share, 1.0), f"{share:.0%}"))
    times = [report[part]["ms"] for part in _PARTS]
    whole = sum(times)
    for part, time in zip(_PARTS, times, strict=True):
        bars.append((f"first token: {part}", TIME, time / whole, f"{time:.4g} ms"))
    return bars
