"""What is installed: every package, the bundle that answers at once, and no more than a robot should download."""

import zlib
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib; 3.11 and newer run this test")

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_every_package_is_installed() -> None:
    there = {
        "gar_edge." + ".".join(file.parent.relative_to(ROOT).parts)
        for room in ("calibration", "export", "models", "runtime")
        for file in (ROOT / room).rglob("__init__.py")
    }
    assert set(SETTINGS["packages"]) == there
    assert {name: folder.replace("/", ".") for name, folder in SETTINGS["package-dir"].items()} == {
        name: name.removeprefix("gar_edge.") for name in there
    }


def test_the_wheel_stays_under_8_mb() -> None:
    """A wheel is a zip of these files, each deflated on its own."""
    files = {
        file
        for name in SETTINGS["packages"]
        for pattern in ("*.py", *SETTINGS["package-data"].get(name, ()))
        for file in (ROOT / SETTINGS["package-dir"][name]).glob(pattern)
        if file.is_file()
    }
    assert ROOT / "runtime" / "nano_bundle" / "gar.json" in files
    assert set((ROOT / "runtime" / "serve" / "page").rglob("*.*")) <= files
    assert ROOT / "models" / "nano" / "checkpoint" / "model.safetensors" in files
    assert sum(len(zlib.compress(file.read_bytes())) + 200 for file in files) < 8_000_000
