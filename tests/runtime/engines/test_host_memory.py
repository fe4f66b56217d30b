"""What is freed is given back, where the C library can."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from gar_edge.runtime.engines import host_memory
from gar_edge.runtime.engines.host_memory import available_memory, give_back_freed


def test_glibc_is_asked() -> None:
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_memory.ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=asked.append))
        give_back_freed()
    assert asked == [0]


@pytest.mark.parametrize("refusal", [OSError("musl"), TypeError("Windows wants a name"), AttributeError("macOS")])
def test_other_libraries_are_left_alone(refusal: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: object) -> None:
        raise refusal

    monkeypatch.setattr(host_memory.ctypes, "CDLL", refuse)
    give_back_freed()


def test_free_memory_is_what_linux_says() -> None:
    stated = Path("/proc/meminfo")
    if not stated.exists():
        assert available_memory() == 0
        return
    total = next(int(line.split()[1]) for line in stated.read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < available_memory() < total << 10
