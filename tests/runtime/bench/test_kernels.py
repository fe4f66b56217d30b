"""What gar-bench says about a processor: from texts of /proc/cpuinfo as systems write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.emulated import run_python

from gar_edge.runtime.bench import kernels
from gar_edge.runtime.bench.kernels import Kernels, find_kernels, kernels_of
from gar_edge.runtime.bench.roof import Roof

ROOF = Roof(20.0, 20.0, 100.0, 190.0)
ICE_LAKE = (
    "processor\t: 0\nmodel name\t: X\nflags\t\t: fpu sse4_1 fma avx2 avx512f avx512bw avx512_vnni\n\nprocessor\t: 1\n"
)
HASWELL = "flags\t\t: fpu sse4_1 fma avx avx2 bmi2\nvmx flags\t: vnmi avx512_vnni\n"
ALDER_LAKE = "flags : sse4_1 avx2 avx_vnni"
A72 = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd crc32 cpuid\nCPU part\t: 0xd08\n"
A76 = "Features\t: fp asimd atomics asimddp\n"


@pytest.mark.parametrize(
    ("text", "names", "integer"),
    [
        (ICE_LAKE, ("SSE4.1", "AVX2", "AVX-512", "AVX-512 VNNI"), ("AVX-512 VNNI",)),
        (HASWELL, ("SSE4.1", "AVX2"), ()),
        (ALDER_LAKE, ("SSE4.1", "AVX2", "AVX-VNNI"), ("AVX-VNNI",)),
        (A72, ("NEON",), ()),
        (A76, ("NEON", "dot products"), ("dot products",)),
        ("", (), ()),
        ("no colon\n\0\xff: flags\nflags", (), ()),
    ],
)
def test_kernels_are_read_from_cpuinfo(text: str, names: tuple[str, ...], integer: tuple[str, ...]) -> None:
    assert kernels_of(text) == (names, integer)


@pytest.mark.parametrize(
    ("text", "shifted", "said", "unsaid"),
    [
        (ICE_LAKE, False, ("AVX-512 VNNI", "int8 weights as stored", "1.9 times as fast as float32"), ("missing",)),
        (HASWELL, True, ("AVX2", "shifted to uint8", "exact", "VNNI is missing"), ("as stored",)),
        (A72, False, ("NEON", "as stored", "dot products of bytes are missing"), ("VNNI",)),
        ("", False, ("not known",), ("missing",)),
    ],
)
def test_a_line_says_what_runs_and_what_is_lost(
    text: str, shifted: bool, said: tuple[str, ...], unsaid: tuple[str, ...]
) -> None:
    line = Kernels(*kernels_of(text), shifted).line(ROOF)
    assert "\n" not in line
    assert all(word in line for word in said), line
    assert not any(word in line for word in unsaid), line


def test_a_system_without_cpuinfo_still_has_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernels, "CPUINFO", tmp_path / "none")
    assert "not known on this system" in find_kernels().line(ROOF)


def test_an_emulated_haswell_says_that_weights_are_shifted() -> None:
    said = run_python(
        "Haswell", "from gar_edge.runtime.bench.kernels import find_kernels\nprint(find_kernels().shifted)"
    )
    assert said.strip() == "True"
