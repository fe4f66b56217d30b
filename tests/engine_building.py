"""Engines built with the fake TensorRT, and machines on which they do not fit."""

from __future__ import annotations

from pathlib import Path

from conftest import FakeGpu

from gar_edge.runtime.bundle import Bundle
from gar_edge.runtime.tensorrt.cuda import Cuda
from gar_edge.runtime.tensorrt.engines import Engine, build_engines, here
from gar_edge.runtime.tensorrt.installed import load_library
from gar_edge.runtime.tensorrt.plan import Limits


def build(folder: Path, plugin: Path | None = None, rebuild: bool = False, **limits: int) -> list[Engine]:
    bundle, library, cuda = Bundle.open(folder), load_library("tensorrt"), Cuda.load()
    sizes = Limits.of(bundle.manifest, **limits)
    return build_engines(bundle, library, here(library, cuda), sizes, plugin, rebuild, cuda, lambda _: None)


def keys(engines: list[Engine]) -> dict[str, str]:
    return {engine.record.recipe.graph: engine.record.recipe.key() for engine in engines}


def change_version(gpu: FakeGpu) -> None:
    gpu.tensorrt.__version__ = "10.16.0.1"


def change_device(gpu: FakeGpu) -> None:
    gpu.cuda.device_name, gpu.cuda.capability = "RTX 4090", (8, 9)
