"""Shared fixtures: a private home, small checkpoints of several shapes, and bundles exported from them."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes.cuda import FakeCuda, FakeStream
from fakes.cuda_driver import FakeDriver
from fakes.gpu import FakeGpu
from fakes.onnxruntime import FakeOnnxRuntime
from fakes.tensorrt import FakeTensorRt
from helpers.shapes import SHAPES, SHARDS, SMALLEST
from helpers.shared import shared_folder
from helpers.spoilt import write_json
from safetensors.torch import load_file, save_file

from gar_edge.export import forms
from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.models.checkpoint import Checkpoint, open_checkpoint, shipped_checkpoint
from gar_edge.models.sizes import Size
from gar_edge.models.standin import random_checkpoint_of, write_checkpoint
from gar_edge.runtime.files.paths import HOME


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A per-user data directory of this test run's own."""
    folder = tmp_path_factory.mktemp("home")
    os.environ[HOME] = str(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def captured_once() -> Iterator[None]:
    """Capture each model once for all exports of one process, which saves most of the suite's time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("capture_encoder", "capture_decoder", "capture_compat_decoder"):
            patch.setattr(forms, name, functools.cache(getattr(forms, name)))
        yield


@pytest.fixture(scope="session", params=sorted(SHAPES))
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return random_checkpoint_of(SHAPES[request.param], request.param)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest checkpoint in the released format. Copy it before altering it."""
    return shared_folder(tmp_path_factory, "GAR-tiny", lambda folder: write_checkpoint(folder, SMALLEST))


@pytest.fixture
def own_checkpoint(checkpoint_folder: Path, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be spoilt."""
    return shutil.copytree(checkpoint_folder, tmp_path / "GAR-tiny")


@pytest.fixture
def sharded_checkpoint(own_checkpoint: Path) -> Path:
    """The same in two shards and an index."""
    tensors = load_file(own_checkpoint / "model.safetensors")
    (own_checkpoint / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    for shard, half in zip(SHARDS, halves, strict=True):
        save_file({name: tensors[name] for name in half}, own_checkpoint / shard)
    index = {name: shard for shard, half in zip(SHARDS, halves, strict=True) for name in half}
    write_json(own_checkpoint / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    return own_checkpoint


def exported(checkpoint: Checkpoint, precision: Precision, *, compat: bool = False) -> Callable[[Path], object]:
    """Writes a checkpoint's bundle into a folder."""
    options = ExportOptions(precision, validate=False, compat=compat)
    return lambda folder: export_bundle(checkpoint, folder, options, Silent())


@pytest.fixture(scope="session")
def bundle(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle exported from `checkpoint`."""
    return shared_folder(tmp_path_factory, checkpoint.name, exported(checkpoint, Precision.FP32))


@pytest.fixture(scope="session")
def compat_bundle(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle exported from `checkpoint`, with a compat decoder beside the standard one."""
    make = exported(checkpoint, Precision.FP32, compat=True)
    return shared_folder(tmp_path_factory, f"{checkpoint.name}-compat", make)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small bundle, for tests to which its shape does not matter. Copy it before altering it."""
    make = exported(random_checkpoint_of(SHAPES["tied"], "tiny"), Precision.FP32)
    return shared_folder(tmp_path_factory, "tiny", make)


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bundle` that nobody has opened yet, to be spoilt."""
    return shutil.copytree(tiny_bundle, tmp_path / "tiny")


@pytest.fixture(scope="session")
def half_nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gar-nano in fp16, as TensorRT takes it. Copy it before altering it."""
    checkpoint = open_checkpoint(shipped_checkpoint(Size.NANO), name="gar-nano")
    return shared_folder(tmp_path_factory, "nano", exported(checkpoint, Precision.FP16))


@pytest.fixture(scope="module")
def built_nano(half_nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `half_nano` for one module: loading it with TensorRT puts engines into it."""
    return shutil.copytree(half_nano, tmp_path_factory.mktemp("bundles") / "nano")


@pytest.fixture
def own_nano(half_nano: Path, tmp_path: Path) -> Path:
    """A copy of `half_nano` for one test, without engines."""
    return shutil.copytree(half_nano, tmp_path / "nano")


@pytest.fixture
def cuda() -> FakeCuda:
    """CUDA's runtime, faked."""
    return FakeCuda()


@pytest.fixture
def stream(cuda: FakeCuda) -> FakeStream:
    """A non-blocking stream of the fake."""
    return cuda.cudaStreamCreateWithFlags(1)[1]


@pytest.fixture
def trt(cuda: FakeCuda) -> FakeTensorRt:
    """TensorRT, faked."""
    return FakeTensorRt(cuda)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, trt: FakeTensorRt) -> FakeGpu:
    """Puts the fakes in the place of `tensorrt` and cuda-python."""
    gpu = FakeGpu(cuda, FakeDriver(cuda), trt, FakeTensorRt(cuda, "tensorrt_rtx", "1.7.1.116"))
    monkeypatch.setitem(sys.modules, "tensorrt", gpu.tensorrt)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", gpu.rtx)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", gpu.driver)
    monkeypatch.setattr("gar_edge.runtime.engines.choice.nvidia_gpu_is_visible", lambda: cuda.present)
    return gpu


@pytest.fixture
def fake_provider(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> FakeOnnxRuntime:
    """Puts an ONNX Runtime with a CUDA provider, on the faked GPU, in the place of `onnxruntime`."""
    fake = FakeOnnxRuntime(fake_gpu.cuda)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr("gar_edge.runtime.engines.onnxruntime.cuda_provider._cudnn_can_be_loaded", lambda: fake.cudnn)
    return fake


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """RGB uint8 [90,130,3]: smooth gradients with some noise."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:90, 0:130]
    base = np.stack([x * 255 / 129, y * 255 / 89, (x + y) * 255 / 218], axis=-1)
    return np.clip(base + random.normal(0, 12, base.shape), 0, 255).astype(np.uint8)
