"""Whether there is a GPU, asked of a driver that is not there, or says this or that."""

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gar_edge.runtime.engines import gpu
from gar_edge.runtime.engines.gpu import l4t_release, nvidia_gpu_is_visible


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


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, EABI: aarch64\n", "L4T 36.4.7"),
        ("# R39 (release), REVISION: 2.0, GCID: 1\n# KERNEL_VARIANT: oot\n", "L4T 39.2.0"),
        ("something else\n", None),
        (None, None),
    ],
)
def test_a_jetsons_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, release: str | None
) -> None:
    """As NVIDIA's files of JetPack 6 and 7 begin; elsewhere there is no such file."""
    monkeypatch.setattr(gpu, "_TEGRA", tmp_path / "nv_tegra_release")
    if text is not None:
        (tmp_path / "nv_tegra_release").write_text(text)
    assert l4t_release() == release
