"""A quantisation as one HTML page, from its quantization.json: figures, what stays float, a picture per graph."""

from __future__ import annotations

import html
import itertools
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, LEFT, RIGHT, TOP, LANE, BOTTOM = 760, 44, 36, 30, 24, 36  # of a chart, in its own units
LOWEST, HIGHEST = -20, 80  # dB; beyond, a dot stands at the edge, so that one exact site does not flatten the rest
NONE = "–"
ROLES = {  # numbers of CSS's colours; groups that never meet in one graph share one
    "qkv": 0, "proj": 1, "o_proj": 1, "fc1": 2, "gate_up": 2, "fc2": 3, "down_proj": 3, "projector": 4, "head": 4,
}  # fmt: skip
OTHER = 5
META = """<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""
LAYER = re.compile(r"(?:^|\.)(\d{1,6})\.")

# Okabe and Ito's colours, told apart with any colour vision; dashes do the same on a black and white print.
CSS = """
:root { color-scheme: light dark; --ink: #1b1d20; --soft: #5a6068; --line: #d9dce1; --ground: #fff; --card: #f4f5f7;
  --good: #00694b; --bad: #b04a00; --g0: #0072b2; --g1: #d99000; --g2: #009e73; --g3: #d55e00; --g4: #b95c95;
  --g5: #6b6b6b }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a2a9b2; --line: #363b42; --ground: #15171a;
  --card: #1f2226; --good: #4ccf9f; --bad: #ff9a4d; --g0: #56a8e8; --g1: #f0b429; --g2: #2fc796; --g3: #ff7a33;
  --g4: #e093bf; --g5: #a8a8a8 } }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; color: var(--ink); background: var(--ground);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.5rem; margin: .5rem 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem } p { margin: .5rem 0 }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .6rem; margin: 1rem 0 }
.card { background: var(--card); border-radius: 8px; padding: .6rem .8rem }
.card strong { display: block; font-size: 1.3rem; line-height: 1.3; font-variant-numeric: tabular-nums }
.soft, .card span, figcaption { color: var(--soft); font-size: .85rem } .card span { display: block }
.good { color: var(--good); font-weight: 600 } .bad { color: var(--bad); font-weight: 600 }
.wide { overflow-x: auto } figure { margin: 0 }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right; white-space: nowrap } th { color: var(--soft); font-weight: 600 }
summary { cursor: pointer; font-weight: 600; margin: 1rem 0 .5rem }
.chart { display: block; width: 100%; min-width: 40rem } .key { width: 30px; height: 10px; margin-right: .35rem }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem } .legend span { white-space: nowrap }
svg text { fill: var(--soft); font-size: 12px } .grid { stroke: var(--line) }
.curve { fill: none; stroke: var(--c); stroke-width: 1.5 }
.dot { fill: var(--c); stroke: var(--c); stroke-width: 1.5 } .hollow { fill: var(--ground) }
.g0 { --c: var(--g0) } .g1 { --c: var(--g1); stroke-dasharray: 8 3 } .g2 { --c: var(--g2); stroke-dasharray: 3 3 }
.g3 { --c: var(--g3) } .g4 { --c: var(--g4) } .g5 { --c: var(--g5) } .g3.curve { stroke-dasharray: 10 3 2 3 }
.dot { stroke-dasharray: none }
@media print { :root { font-size: 12px } body { max-width: none } .chart { min-width: 0 }
  .card { border: 1px solid var(--line) } section, .card, tr { break-inside: avoid } h2 { break-after: avoid } }
"""


class _Markup(str):
    """HTML already; any other text is escaped on its way into a node."""


@dataclass(frozen=True)
class _Site:
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
        """The int8 range as a share of the largest magnitude seen: beyond, values are clipped."""
        if not self.top or not self.threshold or not math.isfinite(self.top):
            return None
        return min(self.threshold / self.top, 1.0)

    @property
    def tip(self) -> str:
        smoothed = f", smoothed {self.alpha:g}" if self.alpha else ""
        kept = f", range {self.threshold:.3g} of {self.top:.3g}" if self.kept is not None else ""
        return f"{self.name}: {_shown(self.snr_db, '.1f')} dB, {self.scheme}{smoothed}{kept}"


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
    value: Callable[[_Site], float | None]
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
    def of(cls, sites: Sequence[_Site]) -> _Layers:
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


def html_report(report: Mapping[str, Any]) -> str:
    """The page: nothing is loaded from elsewhere, and no script runs.

    Figures may be missing, null or not finite. Any text may stand in names: all of it is escaped.
    """
    sites = _sites(report)
    title = f"{report.get('model') or 'Model'}: quantisation"
    head = _node("head", {}, _Markup(META), _node("title", {}, title), _node("style", {}, _Markup(CSS)))
    figures: Mapping[str, Any] = report.get("graphs") or {}
    graphs = [
        _graph(name, [one for one in sites if one.graph == name], figures.get(name) or {})
        for name in dict.fromkeys([*figures, *(one.graph for one in sites)])
    ]
    parts = [_cards(report), _budget(report), _kept_float(report), *graphs, _data(report), _all_sites(sites)]
    page = _node("html", {"lang": "en"}, head, _node("body", {}, _node("h1", {}, title), *parts))
    return f"<!DOCTYPE html>\n{page}\n"


def _sites(report: Mapping[str, Any]) -> list[_Site]:
    """Sites in the report's order; one kept in float has the ratio for which it was."""
    kept = {(one.get("graph"), one.get("site")): _number(one.get("snr_db")) for one in report.get("kept_float") or ()}
    sites = []
    for one in report.get("sites") or ():
        graph, name, group, scheme = (one.get(key) for key in ("graph", "site", "group", "scheme"))
        alpha, snr_db, top, threshold = (_number(one.get(key)) for key in ("alpha", "snr_db", "top", "threshold"))
        if scheme == "float" and (snr_db is None or math.isinf(snr_db)):  # float's own noise says nothing
            snr_db = kept.get((graph, name))
        sites.append(_Site(str(graph), str(name), str(group), str(scheme), alpha, snr_db, top, threshold))
    return sites


def _cards(report: Mapping[str, Any]) -> _Markup:
    size, budget, graphs = (report.get(key) or {} for key in ("size", "budget", "graphs"))
    encoder, decoder = (graphs.get(key) or {} for key in ("encoder", "decoder"))
    token = size.get("bytes_per_token") or {}
    least, most = _shown(budget.get("encoder_cosine"), "g"), _shown(budget.get("kl"), "g")
    positions = _shown(decoder.get("positions"), ",.0f")
    cards = (
        ("Precision", str(report.get("precision") or NONE), f"int8 ranges: {report.get('calibrator') or NONE}"),
        ("Size", *_before_after(size.get("float16_bytes"), size.get("bytes"))),
        ("Read per token", *_before_after(token.get("float16"), token.get("now"))),
        ("Encoder cosine", _shown(encoder.get("cosine"), ".5f"), f"at least {least} wanted"),
        ("Same next token", _percent(decoder.get("next_token_agreement")), f"at {positions} positions"),
        ("KL divergence", _shown(decoder.get("kl"), ".2g"), f"nats; at most {most} wanted"),
    )
    nodes = (
        _node("div", {"class": "card"}, _node("span", {}, name), _node("strong", {}, value), _node("span", {}, note))
        for name, value, note in cards
    )
    return _node("div", {"class": "cards"}, *nodes)


def _before_after(before: object, after: object) -> tuple[str, str]:
    old, new = _number(before), _number(after)
    share = f", now {_percent(new / old, 0)}" if old and new is not None else ""
    return _bytes(new), f"float16: {_bytes(old)}{share}"


def _budget(report: Mapping[str, Any]) -> _Markup:
    held = (report.get("budget") or {}).get("held")
    if held is None:
        return _words("Whether it is within the budget was not measured.")
    words = "✓ Within the budget" if held else "✗ Over the budget"
    return _words(f"{words}, on the held-out samples.", "good" if held else "bad")


def _kept_float(report: Mapping[str, Any]) -> _Markup:
    kept = report.get("kept_float") or ()
    rows = [(one.get("graph"), one.get("site"), _shown(one.get("snr_db"), ".1f"), one.get("why")) for one in kept]
    what = _table(("graph", "site", "SNR, dB", "why"), rows, (2,)) if rows else _node("p", {}, "No site.")
    return _node("section", {}, _node("h2", {}, "Kept in float"), what)


def _graph(name: str, sites: Sequence[_Site], figures: Mapping[str, Any]) -> _Markup:
    """One graph's words and pictures: signal-to-noise ratio and activation range over its layers."""
    parts = [_node("h2", {}, f"Graph: {name}")]
    if figures:
        cosine, error = _shown(figures.get("cosine"), ".5f"), _percent(figures.get("relative_error"))
        parts.append(_words(f"Next to float, from pixels on: cosine {cosine}, relative error {error}."))
    known = [(one.snr_db, one.name) for one in sites if one.snr_db is not None and not one.is_float]
    if known:
        (lowest, where), median = min(known), statistics.median(ratio for ratio, _ in known)
        counted = f"Sites: {len(sites)}, in float: {sum(one.is_float for one in sites)}"
        parts.append(_words(f"{counted}; quantised: median {median:.1f} dB, lowest {lowest:.1f} dB at {where}."))
    if sites:
        layers = _Layers.of(sites)
        charts = [_chart(f"{name}: signal to noise by layer", sites, layers, _decibels(sites))]
        if sum(one.kept is not None for one in sites) > 1:
            label = "int8 range, % of the largest activation seen; the rest is clipped"
            percent = _Axis(label, 0, 100, 25, 110, lambda one: None if one.kept is None else 100 * one.kept)
            charts.append(_chart(f"{name}: activation range by layer", sites, layers, percent))
        parts.append(_node("figure", {}, _legend(sites), _node("div", {"class": "wide"}, *charts)))
    return _node("section", {}, *parts)


def _decibels(sites: Sequence[_Site]) -> _Axis:
    ratios = [one.snr_db for one in sites]
    finite = [min(max(ratio, LOWEST), HIGHEST) for ratio in ratios if ratio is not None and math.isfinite(ratio)]
    low = min(10 * math.floor(min(finite, default=0) / 10), HIGHEST - 10)
    high = max(10 * math.ceil(max(finite, default=0) / 10), low + 10)
    return _Axis("signal to quantisation noise, dB", low, high, 10, 220, lambda one: one.snr_db, None in ratios)


def _legend(sites: Sequence[_Site]) -> _Markup:
    entries = [(group, f"dot {_role(group)}", group) for group in dict.fromkeys(one.group for one in sites)]
    if any(one.is_float for one in sites):
        entries.append(("", f"dot {_role('')} hollow", "hollow: stays float"))
    spans = []
    for group, shape, words in entries:
        line = _node("line", {"class": f"curve {_role(group)}", "x2": 30 * bool(group), "y1": 5, "y2": 5})
        dot = _node("circle", {"class": shape, "cx": 15, "cy": 5, "r": 3})
        spans.append(_node("span", {}, _node("svg", {"class": "key", "viewBox": "0 0 30 10"}, line, dot), words))
    return _node("figcaption", {"class": "legend"}, *spans)


def _chart(label: str, sites: Sequence[_Site], layers: _Layers, axis: _Axis) -> _Markup:
    """An axis' values over layers: a line of dots per group."""
    parts = [_text(0, 14, "start", axis.label), _text(LEFT - 6, axis.bottom + 20, "end", "layer")]
    for mark in range(axis.low, axis.high + 1, axis.step):
        y = axis.y(mark)
        line = {"class": "grid", "x1": LEFT, "x2": WIDTH - RIGHT + 12, "y1": y, "y2": y}
        parts += [_node("line", line), _text(LEFT - 6, y + 4, "end", str(mark))]
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
        dots.append(_node("circle", {"class": shape, **place, "r": 3}, _node("title", {}, site.tip)))
        if value is not None:
            curves.setdefault(site.group, []).append(",".join(place.values()))
    for group, points in curves.items():
        parts.append(_node("polyline", {"class": f"curve {_role(group)}", "points": " ".join(points)}))
    box = f"0 0 {WIDTH} {axis.bottom + BOTTOM}"
    return _node("svg", {"class": "chart", "viewBox": box, "role": "img", "aria-label": label}, *parts, *dots)


def _data(report: Mapping[str, Any]) -> _Markup:
    data = report.get("data") or {}
    used, held_out = _shown(data.get("used"), ".0f"), _shown(data.get("held_out"), ".0f")
    builtin = " (built in)" * bool(data.get("builtin"))
    answers = "prompts and the float model's answers" if data.get("answers") else "prompts without answers"
    words = f"{data.get('description') or NONE}{builtin}: {used} samples to calibrate, {held_out} held out; {answers}."
    parts = [_node("h2", {}, "Calibration data"), _node("p", {}, words)]
    skipped = data.get("skipped") or ()
    if skipped:
        items = _node("ul", {"class": "soft"}, *(_node("li", {}, str(one)) for one in skipped))
        parts.append(_node("details", {}, _node("summary", {}, f"Skipped: {len(skipped)}"), items))
    return _node("section", {}, *parts)


def _all_sites(sites: Sequence[_Site]) -> _Markup:
    names = ("graph", "site", "group", "scheme", "smoothing", "SNR, dB", "largest", "int8 range", "share")
    rows = [
        (
            one.graph, one.name, one.group, one.scheme, _shown(one.alpha, "g"), _shown(one.snr_db, ".1f"),
            _shown(one.top, ".3g"), _shown(one.threshold, ".3g"), _percent(one.kept),
        )
        for one in sites
    ]  # fmt: skip
    return _node("details", {}, _node("summary", {}, f"All sites: {len(sites)}"), _table(names, rows, (4, 5, 6, 7, 8)))


def _table(names: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int]) -> _Markup:
    """`numbers`: the columns aligned to the right."""

    def row(tag: str, cells: Sequence[object]) -> _Markup:
        nodes = (
            _node(tag, {"class": "number"} if column in numbers else {}, NONE if cell is None else str(cell))
            for column, cell in enumerate(cells)
        )
        return _node("tr", {}, *nodes)

    body = _node("tbody", {}, *(row("td", cells) for cells in rows))
    return _node("div", {"class": "wide"}, _node("table", {}, _node("thead", {}, row("th", names)), body))


def _node(tag: str, attributes: Mapping[str, object], *content: str) -> _Markup:
    opening = "".join(f' {name}="{_escaped(str(value))}"' for name, value in attributes.items())
    inside = "".join(part if isinstance(part, _Markup) else _escaped(part) for part in content)
    return _Markup(f"<{tag}{opening}>{inside}</{tag}>")


def _escaped(text: str) -> str:
    """Text for HTML and SVG; what they cannot hold, like control characters, becomes a space."""
    return html.escape("".join(one if one.isprintable() else " " for one in text))


def _text(x: float, y: float, anchor: str, words: str) -> _Markup:
    return _node("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}, words)


def _words(words: str, kind: str = "soft") -> _Markup:
    return _node("p", {"class": kind}, words)


def _role(group: str) -> str:
    return f"g{ROLES.get(group, OTHER)}"


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not math.isnan(value) else None


def _shown(value: object, form: str) -> str:
    number = _number(value)
    return NONE if number is None else format(number, form)


def _percent(value: object, digits: int = 1) -> str:
    number = _number(value)
    return NONE if number is None else f"{100 * number:.{digits}f} %"


def _bytes(value: float | None) -> str:
    if value is None:
        return NONE
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} B"
