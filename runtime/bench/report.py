"""The figures of a benchmark: medians and spreads, shares of the roof, as JSON and as a table."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gar_edge.runtime.bench.kernels import find_kernels
from gar_edge.runtime.bench.roof import Roof
from gar_edge.runtime.bench.stages import Contestant, Setting

_TOOLS = ("gar-edge", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "numpy")
_POWER_MODES = ("/var/lib/nvpmodel/status", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def to_json(contestant: Contestant, setting: Setting, roof: Roof | None, peak_rss: int) -> dict[str, Any]:
    """One nested object: medians by dotted name, `spread` with least and most of each, and what they belong to.

    roof: None where the bundle did not run on the processor.
    """
    manifest = contestant.gar.manifest
    figures = {name: statistics.median(values) for name, values in contestant.samples.values.items()}
    figures |= {"load_ms": contestant.load_ms, "peak_rss_bytes": peak_rss}
    figures |= _achieved(contestant, figures, roof)
    found = _nest({name: round(value, 4) for name, value in figures.items()})
    found["spread"] = {
        name: [round(min(values), 4), round(max(values), 4)] for name, values in contestant.samples.values.items()
    }
    found["setting"] = {
        "model": manifest.name, "precision": manifest.precision, "backend": contestant.gar.pipeline.backend.name,
        "decoder": setting.decoder, "threads": setting.threads, "tiles": setting.tiles, "grid": list(contestant.grid),
        "prompt_tokens": contestant.prompt_tokens, "new_tokens": setting.new_tokens,
    }  # fmt: skip
    found["machine"] = machine()
    if roof is not None:
        kernels = find_kernels()
        found["machine"]["kernels"] = list(kernels.names)
        found["machine"]["int8_weights_run_as"] = "uint8" if kernels.shifted else "int8"
        found["roof"] = {name: round(value, 2) for name, value in vars(roof).items()}
    return found


def _achieved(contestant: Contestant, figures: Mapping[str, float], roof: Roof | None) -> dict[str, float]:
    """Arithmetic and bytes a second, and their shares of the roof."""
    manifest = contestant.gar.manifest
    weights = sum(manifest.files[name].bytes for name in manifest.graphs["decoder"].files[1:])
    cache = contestant.gar.pipeline.decoder.cache_bytes(contestant.prompt_tokens)
    found = {
        "encode.gop_s": figures["encode.tiles_per_s"] * manifest.work.encoder_tile / 1e9,
        "prefill.gop_s": figures["prefill.tokens_per_s"] * manifest.work.decoder_token / 1e9,
    }
    if "decode.tokens_per_s" in figures:
        found["decode.gb_s"] = figures["decode.tokens_per_s"] * (weights + cache) / 1e9
    if roof is not None:
        # Four-bit weights are products of floats on the processor; their encoder is int8 all the same.
        integer = {"encode": manifest.precision in ("int8", "int4"), "prefill": manifest.precision == "int8"}
        for stage, is_integer in integer.items():
            best = roof.int8_gop_s if is_integer else roof.fp32_gop_s
            found[f"{stage}.share_of_roof"] = found[f"{stage}.gop_s"] / best
        if "decode.gb_s" in found:
            found["decode.share_of_roof"] = found["decode.gb_s"] / roof.read_gb_s
    return found


def _nest(flat: Mapping[str, float]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def machine() -> dict[str, Any]:
    """Processor, system, power mode and versions."""
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "device": _read("/proc/device-tree/model") or platform.machine(),
        "system": platform.platform(terse=True),
        "power_mode": next(filter(None, map(_read, _POWER_MODES)), ""),
        "versions": {"python": platform.python_version()} | dict(_versions()),
    }


def _versions() -> list[tuple[str, str]]:
    found = []
    for tool in _TOOLS:
        try:
            found.append((tool, version(tool)))
        except PackageNotFoundError:
            continue
    return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _line(path: str, key: str) -> str:
    for line in _read(path).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
