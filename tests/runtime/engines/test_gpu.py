"""Whether there is a GPU, asked of a driver that is not there, or says this or that."""

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from gar_edge.runtime.engines.gpu import nvidia_gpu_is_visible


def driver(initialised: int, counted: int, count: int) -> Any:
    def count_devices(target: Any) -> int:
        target._obj.value = count
        return counted

    return SimpleNamespace(cuInit=lambda flags: initialised, cuDeviceGetCount=count_devices)


@pytest.mark.parametrize(
    ("answers", "visible"), [((0, 0, 1), True), ((0, 0, 0), False), ((100, 0, 1), False), ((0, 999, 1), False)]
)
def test_the_drivers_answer(monkeypatch: pytest.MonkeyPatch, answers: tuple[int, int, int], visible: bool) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver(*answers))
    assert nvidia_gpu_is_visible() is visible


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert nvidia_gpu_is_visible() is False
