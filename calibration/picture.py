"""A quantisation as one HTML page, from its quantization.json: figures, what stays float, a picture per graph."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gar_edge.calibration.chart import Site, figure
from gar_edge.calibration.markup import NONE, Markup, node

META = """<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""

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


def html_report(report: Mapping[str, Any]) -> str:
    """The page: nothing is loaded from elsewhere, and no script runs.

    Figures may be missing, null or not finite. Any text may stand in names: all of it is escaped.
    """
    sites = _sites(report)
    title = f"{report.get('model') or 'Model'}: quantisation"
    head = node("head", {}, Markup(META), node("title", {}, title), node("style", {}, Markup(CSS)))
    figures: Mapping[str, Any] = report.get("graphs") or {}
    graphs = [
        _graph(name, [one for one in sites if one.graph == name], figures.get(name) or {})
        for name in dict.fromkeys([*figures, *(one.graph for one in sites)])
    ]
    parts = [
        _cards(report),
        _budget(report),
        _kept_float(report),
        *graphs,
        _data(report),
        _all_sites(sites),
        _answers(),
    ]
    page = node("html", {"lang": "en"}, head, node("body", {}, node("h1", {}, title), *parts))
    return f"<!DOCTYPE html>\n{page}\n"


def _answers() -> Markup:
    """Where to go on from here."""
    return node(
        "p", {"class": "soft"}, "Whether answers are as good as the float bundle's: ",
        node("code", {}, "gar-eval compare TASK FLOAT INT8 --data FOLDER --out ANSWERS --margin 0.01"),
        ", on the published benchmarks or on questions of your own (docs/evaluation.md).",
    )  # fmt: skip


def _sites(report: Mapping[str, Any]) -> list[Site]:
    """Sites in the report's order; one kept in float has the ratio for which it was."""
    kept = {(one.get("graph"), one.get("site")): _number(one.get("snr_db")) for one in report.get("kept_float") or ()}
    sites = []
    for one in report.get("sites") or ():
        graph, name, group, scheme = (one.get(key) for key in ("graph", "site", "group", "scheme"))
        alpha, snr_db, top, threshold = (_number(one.get(key)) for key in ("alpha", "snr_db", "top", "threshold"))
        if scheme == "float" and (snr_db is None or math.isinf(snr_db)):  # float's own noise says nothing
            snr_db = kept.get((graph, name))
        sites.append(Site(str(graph), str(name), str(group), str(scheme), alpha, snr_db, top, threshold))
    return sites


def _cards(report: Mapping[str, Any]) -> Markup:
    size, budget, graphs = (report.get(key) or {} for key in ("size", "budget", "graphs"))
    encoder, decoder = (graphs.get(key) or {} for key in ("encoder", "decoder"))
    token = size.get("bytes_per_token") or {}
    least, most = _shown(budget.get("encoder_cosine"), "g"), _shown(budget.get("kl"), "g")
    positions = _shown(decoder.get("positions"), ",.0f")
    cards = (
        ("Precision", str(report.get("precision") or NONE), f"ranges: {report.get('calibrator') or NONE}"),
        ("Size", *_before_after(size.get("float16_bytes"), size.get("bytes"))),
        ("Read per token", *_before_after(token.get("float16"), token.get("now"))),
        ("Encoder cosine", _shown(encoder.get("cosine"), ".5f"), f"at least {least} wanted"),
        ("Same next token", _percent(decoder.get("next_token_agreement")), f"at {positions} positions"),
        ("KL divergence", _shown(decoder.get("kl"), ".2g"), f"nats; at most {most} wanted"),
    )
    nodes = (
        node("div", {"class": "card"}, node("span", {}, name), node("strong", {}, value), node("span", {}, note))
        for name, value, note in cards
    )
    return node("div", {"class": "cards"}, *nodes)


def _before_after(before: object, after: object) -> tuple[str, str]:
    old, new = _number(before), _number(after)
    share = f", now {_percent(new / old, 0)}" if old and new is not None else ""
    return _bytes(new), f"float16: {_bytes(old)}{share}"


def _budget(report: Mapping[str, Any]) -> Markup:
    held = (report.get("budget") or {}).get("held")
    if held is None:
        return _words("Whether it is within the budget was not measured.")
    words = "✓ Within the budget" if held else "✗ Over the budget"
    return _words(f"{words}, on the held-out samples.", "good" if held else "bad")


def _kept_float(report: Mapping[str, Any]) -> Markup:
    kept = report.get("kept_float") or ()
    rows = [(one.get("graph"), one.get("site"), _shown(one.get("snr_db"), ".1f"), one.get("why")) for one in kept]
    what = _table(("graph", "site", "SNR, dB", "why"), rows, (2,)) if rows else node("p", {}, "No site.")
    return node("section", {}, node("h2", {}, "Kept in float"), what)


def _graph(name: str, sites: Sequence[Site], figures: Mapping[str, Any]) -> Markup:
    """One graph's words and pictures: signal-to-noise ratio and activation range over its layers."""
    parts = [node("h2", {}, f"Graph: {name}")]
    if figures:
        cosine, error = _shown(figures.get("cosine"), ".5f"), _percent(figures.get("relative_error"))
        parts.append(_words(f"Next to float, from pixels on: cosine {cosine}, relative error {error}."))
    known = [(one.snr_db, one.name) for one in sites if one.snr_db is not None and not one.is_float]
    if known:
        (lowest, where), median = min(known), statistics.median(ratio for ratio, _ in known)
        counted = f"Sites: {len(sites)}, in float: {sum(one.is_float for one in sites)}"
        parts.append(_words(f"{counted}; quantised: median {median:.1f} dB, lowest {lowest:.1f} dB at {where}."))
    if sites:
        parts.append(figure(name, sites))
    return node("section", {}, *parts)


def _data(report: Mapping[str, Any]) -> Markup:
    data = report.get("data") or {}
    used, held_out = _shown(data.get("used"), ".0f"), _shown(data.get("held_out"), ".0f")
    builtin = " (built in)" * bool(data.get("builtin"))
    answers = "prompts and the float model's answers" if data.get("answers") else "prompts without answers"
    words = f"{data.get('description') or NONE}{builtin}: {used} samples to calibrate, {held_out} held out; {answers}."
    parts = [node("h2", {}, "Calibration data"), node("p", {}, words)]
    skipped = data.get("skipped") or ()
    if skipped:
        items = node("ul", {"class": "soft"}, *(node("li", {}, str(one)) for one in skipped))
        parts.append(node("details", {}, node("summary", {}, f"Skipped: {len(skipped)}"), items))
    return node("section", {}, *parts)


def _all_sites(sites: Sequence[Site]) -> Markup:
    names = ("graph", "site", "group", "scheme", "smoothing", "SNR, dB", "largest", "range", "share")
    rows = [
        (
            one.graph, one.name, one.group, one.scheme, _shown(one.alpha, "g"), _shown(one.snr_db, ".1f"),
            _shown(one.top, ".3g"), _shown(one.threshold, ".3g"), _percent(one.kept),
        )
        for one in sites
    ]  # fmt: skip
    return node("details", {}, node("summary", {}, f"All sites: {len(sites)}"), _table(names, rows, (4, 5, 6, 7, 8)))


def _table(names: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int]) -> Markup:
    """`numbers`: the columns aligned to the right."""

    def row(tag: str, cells: Sequence[object]) -> Markup:
        nodes = (
            node(tag, {"class": "number"} if column in numbers else {}, NONE if cell is None else str(cell))
            for column, cell in enumerate(cells)
        )
        return node("tr", {}, *nodes)

    body = node("tbody", {}, *(row("td", cells) for cells in rows))
    return node("div", {"class": "wide"}, node("table", {}, node("thead", {}, row("th", names)), body))


def _words(words: str, kind: str = "soft") -> Markup:
    return node("p", {"class": kind}, words)


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
