"""The account of a quantisation: `quantization.json`, its table in a terminal, and what TensorRT 10 can read of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import onnx_ir as ir
from rich.table import Table

from gar_edge.calibration.cache import write_cache
from gar_edge.calibration.calibrate import Calibrated, CalibrationOptions
from gar_edge.calibration.evaluate import Budget, Loss
from gar_edge.calibration.plan import Plan, Scheme, SitePlan
from gar_edge.calibration.rounding import INT8_MAX

FILE = "quantization.json"


def to_json(
    model: str,
    calibrated: Calibrated,
    options: CalibrationOptions,
    plans: Mapping[str, Plan],
    reasons: Mapping[str, str],
    loss: Loss | None,
    budget: Budget,
    size: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole account. plans: as they were written; reasons: why sites stayed float, by name."""
    return {
        "model": model,
        "precision": options.scheme.value,
        "calibrator": options.calibrator.value,
        "smoothing": options.smooth,
        "data": {
            "description": calibrated.description,
            "builtin": calibrated.builtin,
            "asked": options.asked,
            "used": calibrated.used,
            "held_out": len(calibrated.reference),
            "skipped": list(calibrated.skipped),
            "answers": calibrated.answered,
        },
        "budget": {
            "encoder_cosine": budget.encoder_cosine,
            "kl": budget.kl,
            "held": None if loss is None else loss.within(budget),
        },
        "kept_float": [
            {"graph": graph, "site": name, "snr_db": _number(calibrated.plans[graph].sites[name].snr_db),
             "why": reasons.get(name, "asked for")}
            for graph, plan in plans.items() for name, site in plan.sites.items() if site.scheme is Scheme.FLOAT
        ],
        "graphs": {} if loss is None else loss.to_json(),
        "sites": [_site(graph, site) for graph, plan in plans.items() for site in plan.sites.values()],
        "size": dict(size),
    }  # fmt: skip


def _site(graph: str, plan: SitePlan) -> dict[str, Any]:
    return {
        "graph": graph,
        "site": plan.site.name,
        "group": plan.site.group,
        "scheme": plan.scheme.value,
        "alpha": plan.alpha if plan.smooth is not None else None,
        "snr_db": _number(plan.snr_db),
        "top": plan.top or None,
        "threshold": plan.step * plan.scheme.largest or None,
    }


def _number(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def decode_bytes(plan: Plan, decoder: ir.Model) -> dict[str, int]:
    """Bytes of weights that decoding one token reads, in float16 and as planned; decoder: the float graph."""
    float16 = now = 0
    for site in plan.sites.values():
        for name in site.site.weights:
            shape = decoder.graph.initializers[name].shape
            assert shape is not None
            count = math.prod(shape.numpy())
            float16 += 2 * count
            now += count // 2 if site.scheme is Scheme.INT4 else 2 * count if site.scheme is Scheme.FLOAT else count
    return {"float16": float16, "now": now}


def tables(report: Mapping[str, Any]) -> Iterable[Table]:
    """The account for a terminal: what it cost as a whole, then each group of layers."""
    yield _costs(report)
    groups = Table("graph", "layers", "as", "count", "signal/noise dB", "lowest", "range", title="Quantised layers")
    ordered = sorted(report["sites"], key=lambda site: (site["graph"] != "encoder", site["group"], site["scheme"]))
    for (graph, group, scheme), members in groupby(
        ordered, key=lambda site: (site["graph"], site["group"], site["scheme"])
    ):
        sites = list(members)
        ratios = [site["snr_db"] for site in sites if site["snr_db"] is not None]
        tops = [site["top"] for site in sites if site["top"] is not None]
        groups.add_row(
            graph,
            group,
            scheme,
            str(len(sites)),
            f"{sum(ratios) / len(ratios):.1f}" if ratios else "",
            f"{min(ratios):.1f}" if ratios else "",
            f"{min(tops):.3g} … {max(tops):.3g}" if tops else "",
        )
    yield groups


def _costs(report: Mapping[str, Any]) -> Table:
    data, budget, size = report["data"], report["budget"], report["size"]
    table = Table(show_header=False, title=f"{report['model']}: what quantisation cost")
    used = str(data["used"]) if data["used"] == data["asked"] else f"only {data['used']} of {data['asked']}"
    table.add_row("calibrated on", f"{data['description']} ({used} samples; {data['held_out']} measured)")
    if data["skipped"]:
        more = "" if len(data["skipped"]) == 1 else f" (and {len(data['skipped']) - 1} more)"
        table.add_row("left out", data["skipped"][0] + more)
    graphs = report["graphs"]
    if graphs:
        encoder, decoder = graphs["encoder"], graphs["decoder"]
        table.add_row("encoder", f"cosine {encoder['cosine']:.5f}, relative error {encoder['relative_error']:.4f}")
        table.add_row("logits", f"cosine {decoder['cosine']:.5f}, relative error {decoder['relative_error']:.4f}")
        agreed = f"{100 * decoder['next_token_agreement']:.1f} % of {decoder['positions']}"
        table.add_row("next token", f"the same at {agreed} positions, KL {decoder['kl']:.5f} nats")
        held = "held" if budget["held"] else "NOT held"
        table.add_row("budget", f"{held} (cosine ≥ {budget['encoder_cosine']}, KL ≤ {budget['kl']})")
    reasons = sorted({entry["why"] for entry in report["kept_float"]})
    kept = [
        f"{why}: " + ", ".join(entry["site"] for entry in report["kept_float"] if entry["why"] == why)
        for why in reasons
    ]
    table.add_row("kept in float", "\n".join(kept) or "nothing")
    per_token = size["bytes_per_token"]
    table.add_row("on disk", f"{size['bytes'] / 1e6:.0f} MB (float16: {size['float16_bytes'] / 1e6:.0f} MB)")
    table.add_row("read per token", f"{per_token['now'] / 1e6:.1f} MB (float16: {per_token['float16'] / 1e6:.1f} MB)")
    return table


def write_caches(
    folder: Path, models: Mapping[str, ir.Model], calibrated: Calibrated, options: CalibrationOptions
) -> list[Path]:
    """TensorRT 10's calibration caches for the *float* graphs of a checkpoint: `GRAPH.calibration.cache`, one each."""
    written = []
    for graph, ranges in calibrated.ranges.items():
        scales: dict[str, float] = {}
        for plan in calibrated.plans[graph].sites.values():
            site = plan.site
            weight = models[graph].graph.initializers[site.weights[0]]
            reader = next(iter(weight.uses())).node
            source = reader.inputs[0]
            assert source is not None
            assert source.name is not None
            scales[source.name] = ranges[site.name] / INT8_MAX
        path = folder / f"{graph}.calibration.cache"
        write_cache(path, scales, options.calibrator)
        written.append(path)
    return written
