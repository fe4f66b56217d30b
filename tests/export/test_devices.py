"""`gar-export --for DEVICE`: what is chosen, against what each device can do, and what the command makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gar_edge.export.cli import _fitted
from gar_edge.export.devices import DeviceName
from gar_edge.export.graphs import Precision
from gar_edge.export.needed_memory import needed_gb
from gar_edge.models.sizes import Size
from gar_edge.models.standin import random_checkpoint
from gar_edge.runtime.errors import GarExportError

# Compute capability, from NVIDIA's tables, and TensorRT of the oldest JetPack that is supported.
MACHINES = {
    "orin-nano": (8.7, "10.3"), "orin": (8.7, "10.3"), "thor": (11.0, "10.13"), "rtx30": (8.6, None),
    "rtx40": (8.9, None), "rtx50": (12.0, None),
}  # fmt: skip


@pytest.mark.parametrize("name", list(DeviceName))
def test_the_1b_suits_every_device(name: DeviceName) -> None:
    """8-bit floats only where there are some, a compat decoder for TensorRT before 10.15, and a reason for each."""
    capability, tensorrt = MACHINES[name.value]
    choice = _fitted(random_checkpoint(Size("1b")), name, None)
    assert choice.precision == ("fp8" if capability >= 8.9 else "int8")
    assert choice.compat == (tensorrt is not None)
    assert choice.tiles == (4 if name is DeviceName.ORIN_NANO else None)
    assert choice.split_head == (tensorrt == "10.3")  # JetPack 6's NvMap
    assert len(choice.reasons) == 2 + choice.compat + choice.split_head + (choice.tiles is not None)
    first, *reasons = choice.sentences()
    assert first.startswith(f"For {choice.device}: --{choice.precision}")
    assert ("--compat" in first, "--max-tiles 4" in first) == (choice.compat, choice.tiles == 4)
    assert ("--split-head" in first) == choice.split_head
    assert all(reason.startswith("  ") for reason in reasons)


def test_the_8b_by_memory() -> None:
    model = random_checkpoint(Size("8b"))
    with pytest.raises(GarExportError, match=r"about 11\.\d GB as int8, and Orin Nano has 8 GB; take a smaller model"):
        _fitted(model, DeviceName.ORIN_NANO, None)
    assert _fitted(model, DeviceName.ORIN, None).precision == "int8"
    desktop = _fitted(model, DeviceName.RTX40, None)
    assert desktop.precision == "fp8"
    assert "of 8 to 24 GB, so not in every one" in " ".join(desktop.reasons)


def test_a_number_of_tiles_of_ones_own_stays() -> None:
    choice = _fitted(random_checkpoint(Size("1b")), DeviceName.ORIN_NANO, 9)
    assert choice.tiles == 9
    assert "--max-tiles 9" in choice.sentences()[0]


@pytest.mark.parametrize(
    ("size", "precision", "compat", "by_hand"),
    [
        # docs/jetson.md's table, worked by hand there: encoder and decoder, then the cache of the default capacity.
        ("1b", Precision.FP16, False, 3.07 + 0.2),
        ("1b", Precision.INT8, False, 1.54 + 0.2),
        ("1b", Precision.INT8, True, 1.54 + 0.4),
        ("1b", Precision.INT4, False, 1.08 + 0.2),
        ("8b", Precision.INT8, False, 9.3 + 0.54),
        ("8b", Precision.INT4, False, 6.0 + 0.54),
    ],
)
def test_memory_is_the_tables(size: str, precision: Precision, compat: bool, by_hand: float) -> None:
    checkpoint = random_checkpoint(Size(size))
    tiles = 8 if size == "8b" else 16
    assert needed_gb(checkpoint, precision, tiles, compat) == pytest.approx(by_hand, abs=0.06)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gar_edge.export.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_exports_what_it_chose(tmp_path: Path) -> None:
    arguments = ("--size", "nano", "--random-weights", "--for", "orin-nano", "--calib-samples", "2", "--no-validate")
    done = run(*arguments, "-o", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["for"]
    assert (said["precision"], said["compat"], said["device"]) == ("int8", True, "Orin Nano")
    assert said["split_head"]
    assert all(reason in done.stderr for reason in said["reasons"])
    manifest = json.loads((tmp_path / "b" / "gar.json").read_text(encoding="utf-8"))
    assert (manifest["precision"], "compat" in manifest["engine_graphs"]) == ("int8", True)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--int8", "--for chooses --int8 by itself"),
        ("--compat", "--for chooses --compat by itself"),
        ("--split-head", "--for chooses --split-head by itself"),
    ],
)
def test_options_that_contradict_it_are_refused(tmp_path: Path, option: str, said: str) -> None:
    done = run("--size", "nano", "--for", "orin", option, "-o", tmp_path / "b")
    assert done.returncode == 2
    assert said in " ".join(done.stderr.replace("│", "").split())
    assert not (tmp_path / "b").exists()


def test_an_unknown_device_is_told_the_known_ones() -> None:
    done = run("--size", "nano", "--for", "nano")
    assert done.returncode == 2
    assert all(name.value in done.stderr for name in DeviceName)
