"""The settings of gar-export's own process."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from gar_edge.export import process

# How many pages a program fetches for a tensor of 64 MiB that it makes and frees ten times.
FAULTS = """
import resource, sys
from gar_edge.export.process import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import numpy as np
np.ones(16 << 20, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(16 << 20, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int], bool]:
    """What this process's allocator is told, instead of telling it; and no OpenMP settings."""
    told: dict[tuple[int, int], bool] = {}

    class Library:
        def __init__(self, name: str) -> None:
            assert name == "libc.so.6"

        def mallopt(self, option: int, value: int) -> int:
            told[option, value] = True
            return 1

    monkeypatch.setattr(ctypes, "CDLL", Library)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return told


def test_threads_wait_briefly_and_memory_is_kept(untouched: dict[tuple[int, int], bool]) -> None:
    process.settle_threads()
    process.keep_freed_memory()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    assert 0 < int(os.environ["GOMP_SPINCOUNT"]) < 10_000
    assert untouched == {(-1, 2**31 - 1): True, (-4, 0): True}  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "5")])
def test_the_users_settings_stay_and_nothing_overrules_them(
    untouched: object, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    process.settle_threads()
    assert {key: os.environ.get(key) for key in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")} == {
        "OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": None, name: value,
    }  # fmt: skip


@pytest.mark.parametrize("missing", [OSError, AttributeError])
def test_another_c_library_is_left_alone(
    untouched: object, missing: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise missing(name)

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    process.keep_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told")
def test_large_tensors_are_not_fetched_anew() -> None:
    def faults(mode: str) -> int:
        command = [sys.executable, "-c", FAULTS, mode]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < 100 < 10 * 64 < faults("plain")  # 640 where pages are 1 MiB, 160,000 of 4 KiB


KEPT = """
import resource
from pathlib import Path
from gar_edge.export.process import keep_freed_memory
from gar_edge.runtime.engines.host_memory import give_back_freed
import numpy as np
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
keep_freed_memory()
before = resident()
tensors = [np.ones(8 << 20, np.float32) for _ in range(10)]
del tensors
kept = resident() - before
give_back_freed()
print(kept, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told")
def test_what_was_kept_is_given_back_before_memory_is_looked_at() -> None:
    """Ten tensors of 32 MiB: what decides by the memory that is free must not take them for used."""
    shown = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True).stdout
    kept, left = map(int, shown.split())
    assert kept > 300
    assert left < 32
