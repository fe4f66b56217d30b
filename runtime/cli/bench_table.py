"""Figures of a benchmark as a table in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

ROWS: Mapping[str, tuple[str, str]] = {
    "load_ms": ("load", "ms"),
    "preprocess.ms": ("preprocess", "ms"),
    "encode.tiles_per_s": ("encode", "tiles/s"),
    "replay.ms": ("replay", "ms"),
    "prefill.tokens_per_s": ("prefill", "tokens/s"),
    "first_token_ms": ("first token", "ms"),
    "decode.tokens_per_s": ("decode", "tokens/s"),
    "second_question.first_token_ms": ("first token, second question", "ms"),
    "second_region.first_token_ms": ("first token, second region", "ms"),
    "second_region.encode_ms": ("encode, second region", "ms"),
}


def to_table(reports: Sequence[dict[str, Any]]) -> Table:
    """A column for each bundle; ratios to the first."""
    table = Table("", *(report["setting"]["model"] for report in reports))
    names = dict(ROWS)
    for count in reports[0].get("regions", {}):
        names[f"regions.{count}.regions_per_s"] = (f"{count} regions together", "regions/s")
        names[f"regions.{count}.decode_tokens_per_s"] = (f"decode, {count} regions", "tokens/s")
    for name, (title, unit) in names.items():
        values = [_lookup(report, name) for report in reports]
        if values[0] is not None:
            table.add_row(f"{title}, {unit}", *(_cell(report, name, values[0]) for report in reports))
    for stage, unit in (("encode", "gop_s"), ("prefill", "gop_s"), ("decode", "gb_s")):
        if stage in reports[0] and unit in reports[0][stage]:
            title = f"{stage}, {'GB/s' if unit == 'gb_s' else 'GOP/s'} (share of roof)"
            table.add_row(title, *(_with_share(report.get(stage, {}), unit) for report in reports))
    table.add_row("peak memory of the process, MB", *(f"{report['peak_rss_bytes'] / 1e6:.0f}" for report in reports))
    return table


def _lookup(report: Mapping[str, Any], name: str) -> float | None:
    value: Any = report
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _cell(report: Mapping[str, Any], name: str, first: float) -> str:
    value = _lookup(report, name)
    if value is None:
        return "-"
    text = f"{value:.4g}"
    if name in report["spread"]:
        least, most = report["spread"][name]
        text += f" ({least:.3g}…{most:.3g})"
    return text if value == first else f"{text} {value / first:.2f}x"


def _with_share(stage: Mapping[str, float], unit: str) -> str:
    share = f" ({stage['share_of_roof']:.0%})" if "share_of_roof" in stage else ""
    return f"{stage[unit]:.4g}{share}" if unit in stage else "-"
