"""SVG charts of a graph's sites over its layers: signal-to-noise ratio, and range."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gar_edge.calibration.markup import NONE, Markup, node

WIDTH, LEFT, RIGHT, TOP, LANE, BOTTOM = 760, 44, 36, 30, 24, 36  # of a chart, in its own units
LOWEST, HIGHEST = -20, 80  # dB; beyond, a dot stands at the edge, so that one exact site does not flatten the rest
ROLES = {  # numbers of the page's colours; groups that never meet in one graph share one
    "qkv": 0, "proj": 1, "o_proj": 1, "fc1": 2, "gate_up": 2, "fc2": 3, "down_proj": 3, "projector": 4, "head": 4,
}  # fmt: skip
OTHER = 5
LAYER = re.compile(r"(?:^|\.)(\d{1,6})\.")


@dataclass(frozen=True)
class Site:
    """A site as the report has it; a figure that is missing or not a number is None."""

    graph: str
    name: str
    group: str
    scheme: str
    alpha: float | None
    snr_db: float | None
    top: float | None
    threshold: float | None

    @property
    def is_float(self) -> bool:
        return self.scheme == "float"

    @property
    def kept(self) -> float | None:
        """The range as a share of the largest magnitude seen: beyond, values are clipped."""
        if not self.top or not self.threshold or not math.isfinite(self.top):
            return None
        return min(self.threshold / self.top, 1.0)

    @property
    def tip(self) -> str:
        ratio = NONE if self.snr_db is None else f"{self.snr_db:.1f}"
        smoothed = f", smoothed {self.alpha:g}" if self.alpha else ""
        kept = f", range {self.threshold:.3g} of {self.top:.3g}" if self.kept is not None else ""
        return f"{self.name}: {ratio} dB, {self.scheme}{smoothed}{kept}"


@dataclass(frozen=True)
class _Axis:
    """A vertical axis of `height`, with a gridline every `step`, for a `value` of sites.

    lane: whether sites without the value have a place below.
    """

    label: str
    low: int
    high: int
    step: int
    height: int
    value: Callable[[Site], float | None]
    lane: bool = False

    @property
    def bottom(self) -> int:
        return TOP + self.height + LANE * self.lane

    def y(self, value: float | None) -> float:
        if value is None:
            return self.bottom
        share = (value - self.low) / (self.high - self.low)
        return TOP + self.height * (1 - min(max(share, 0.0), 1.0))


@dataclass(frozen=True)
class _Layers:
    """The horizontal axis: a column per site, and words at some columns."""

    columns: Sequence[int]
    ticks: Sequence[tuple[int, str]]

    @classmethod
    def of(cls, sites: Sequence[Site]) -> _Layers:
        """A site's column is its layer's number, or, outside the layers, a place of its own after the last."""
        found = [LAYER.search(one.name) for one in sites]
        numbers = [int(match[1]) for match in found if match]
        free = itertools.count(max(numbers) + 2 if numbers else 0)
        columns = [int(match[1]) if match else next(free) for match in found]
        last = {one.group: column for one, column, match in zip(sites, columns, found, strict=True) if not match}
        ticks = [(column, group) for group, column in last.items()]
        if numbers:
            every = math.ceil((max(numbers) - min(numbers) + 1) / 13)
            ticks += [(number, str(number)) for number in range(min(numbers), max(numbers) + 1, every)]
        return cls(columns, ticks)

    def x(self, column: int) -> float:
        first, last = min(self.columns), max(self.columns)
        share = (column - first) / (last - first) if last > first else 0.5
        return LEFT + 12 + share * (WIDTH - LEFT - RIGHT - 12)


def figure(name: str, sites: Sequence[Site]) -> Markup:
    """A graph's charts over its layers, with one legend: signal-to-noise ratio and, where known, range."""
    layers = _Layers.of(sites)
    charts = [_chart(f"{name}: signal to noise by layer", sites, layers, _decibels(sites))]
    if sum(one.kept is not None for one in sites) > 1:
        label = "range, % of the largest activation seen; the rest is clipped"
        percent = _Axis(label, 0, 100, 25, 110, lambda one: None if one.kept is None else 100 * one.kept)
        charts.append(_chart(f"{name}: activation range by layer", sites, layers, percent))
    return node("figure", {}, _legend(sites), node("div", {"class": "wide"}, *charts))


def _decibels(sites: Sequence[Site]) -> _Axis:
    ratios = [one.snr_db for one in sites]
    finite = [min(max(ratio, LOWEST), HIGHEST) for ratio in ratios if ratio is not None and math.isfinite(ratio)]
    low = min(10 * math.floor(min(finite, default=0) / 10), HIGHEST - 10)
    high = max(10 * math.ceil(max(finite, default=0) / 10), low + 10)
    return _Axis("signal to quantisation noise, dB", low, high, 10, 220, lambda one: one.snr_db, None in ratios)


def _legend(sites: Sequence[Site]) -> Markup:
    entries = [(group, f"dot {_role(group)}", group) for group in dict.fromkeys(one.group for one in sites)]
    if any(one.is_float for one in sites):
        entries.append(("", f"dot {_role('')} hollow", "hollow: stays float"))
    spans = []
    for group, shape, words in entries:
        line = node("line", {"class": f"curve {_role(group)}", "x2": 30 * bool(group), "y1": 5, "y2": 5})
        dot = node("circle", {"class": shape, "cx": 15, "cy": 5, "r": 3})
        spans.append(node("span", {}, node("svg", {"class": "key", "viewBox": "0 0 30 10"}, line, dot), words))
    return node("figcaption", {"class": "legend"}, *spans)


def _chart(label: str, sites: Sequence[Site], layers: _Layers, axis: _Axis) -> Markup:
    """An axis' values over layers: a line of dots per group."""
    parts = [_text(0, 14, "start", axis.label), _text(LEFT - 6, axis.bottom + 20, "end", "layer")]
    for mark in range(axis.low, axis.high + 1, axis.step):
        y = axis.y(mark)
        line = {"class": "grid", "x1": LEFT, "x2": WIDTH - RIGHT + 12, "y1": y, "y2": y}
        parts += [node("line", line), _text(LEFT - 6, y + 4, "end", str(mark))]
    if axis.lane:
        parts.append(_text(LEFT - 6, axis.bottom + 4, "end", "none"))
    parts += [_text(layers.x(column), axis.bottom + 20, "middle", words) for column, words in layers.ticks]

    curves: dict[str, list[str]] = {}
    dots = []
    for site, column in zip(sites, layers.columns, strict=True):
        value = axis.value(site)
        if value is None and not axis.lane:
            continue
        shape = f"dot {_role(site.group)}{' hollow' * site.is_float}"
        place = {"cx": f"{layers.x(column):.1f}", "cy": f"{axis.y(value):.1f}"}
        dots.append(node("circle", {"class": shape, **place, "r": 3}, node("title", {}, site.tip)))
        if value is not None:
            curves.setdefault(site.group, []).append(",".join(place.values()))
    for group, points in curves.items():
        parts.append(node("polyline", {"class": f"curve {_role(group)}", "points": " ".join(points)}))
    box = f"0 0 {WIDTH} {axis.bottom + BOTTOM}"
    return node("svg", {"class": "chart", "viewBox": box, "role": "img", "aria-label": label}, *parts, *dots)


def _text(x: float, y: float, anchor: str, words: str) -> Markup:
    return node("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}, words)


def _role(group: str) -> str:
    return f"g{ROLES.get(group, OTHER)}"
