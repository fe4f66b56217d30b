"""Which kernels of integer products this processor has, which form of them runs, and what is lost without the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gar_edge.runtime.bench.roof import Roof
from gar_edge.runtime.engines.onnxruntime.exact_products import products_saturate
from gar_edge.runtime.engines.telemetry import import_onnxruntime

CPUINFO = Path("/proc/cpuinfo")

WITH_VNNI = "3.5 to 4.4"  # docs/performance.md: an Intel Ice Lake and an AMD EPYC of Zen 4

# What ONNX Runtime has kernels for, by the names of /proc/cpuinfo, slowest first.
_FLOAT: Mapping[str, str] = {"sse4_1": "SSE4.1", "avx2": "AVX2", "avx512bw": "AVX-512", "asimd": "NEON"}
_INTEGER: Mapping[str, str] = {  # four products of bytes, added in 32 bits, by one instruction
    "avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX-512 VNNI", "amx_int8": "AMX", "asimddp": "dot products", "i8mm": "I8MM",
}  # fmt: skip


@dataclass(frozen=True)
class Kernels:
    """names: of the kernels, none where the system does not tell; integer: those for bytes among them.

    shifted: whether int8 weights become uint8 when they are loaded, because products saturate otherwise.
    """

    names: tuple[str, ...]
    integer: tuple[str, ...]
    shifted: bool

    def line(self, roof: Roof) -> str:
        """One line for a person."""
        has = ", ".join(self.names) or "not known on this system"
        form = "int8 weights shifted to uint8, for products saturate here" if self.shifted else "int8 weights as stored"
        gain = f"int8 products {roof.int8_gop_s / roof.fp32_gop_s:.1f} times as fast as float32"
        return f"Kernels: {has}; {form}: exact, {gain}{self._lost()}"

    def _lost(self) -> str:
        if self.integer or not self.names:
            return ""
        if _FLOAT["asimd"] in self.names:
            return "; dot products of bytes are missing, and what they give was not measured"
        return f"; VNNI is missing, with which they were {WITH_VNNI} times as fast"


def find_kernels() -> Kernels:
    """Kernels of the processor at hand, as Linux tells and ONNX Runtime computes."""
    try:
        cpuinfo = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    return Kernels(*kernels_of(cpuinfo), products_saturate(import_onnxruntime()))


def kernels_of(cpuinfo: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of all kernels and of those for bytes, from the text of /proc/cpuinfo."""
    has: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86, ARM; all cores run what the first one can
            has = set(value.split())
            break
    integer = tuple(name for flag, name in _INTEGER.items() if flag in has)
    return (*(name for flag, name in _FLOAT.items() if flag in has), *integer), integer
