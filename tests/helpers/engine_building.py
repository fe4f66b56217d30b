"""Engines built with the fake TensorRT, from Python and by the command, and machines on which they do not fit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fakes.gpu import FakeGpu

from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.cli import engine as cli
from gar_edge.runtime.engines.cuda.api import Cuda
from gar_edge.runtime.engines.tensorrt.engines import BuiltEngine, build_engines, here
from gar_edge.runtime.engines.tensorrt.installed import load_library
from gar_edge.runtime.engines.tensorrt.plan import Limits
from gar_edge.runtime.engines.tensorrt.roi_replay import Replay

PORTABLE = Replay()


def build(folder: Path, replay: Replay = PORTABLE, rebuild: bool = False, **limits: int) -> list[BuiltEngine]:
    """A bundle's engines by TensorRT, for this machine."""
    bundle, library, cuda = Bundle.open(folder), load_library("tensorrt"), Cuda.load()
    sizes = Limits.of(bundle.manifest, **limits)
    return build_engines(bundle, library, here(library, cuda), sizes, replay, rebuild, cuda, lambda _: None)


def keys(engines: list[BuiltEngine]) -> dict[str, str]:
    return {engine.record.recipe.graph: engine.record.recipe.key() for engine in engines}


def gar_engine(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command in this process, where the fakes are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gar-engine", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def change_version(gpu: FakeGpu) -> None:
    gpu.tensorrt.__version__ = "10.16.0.1"


def change_device(gpu: FakeGpu) -> None:
    gpu.cuda.device_name, gpu.cuda.capability = "RTX 4090", (8, 9)
