"""Kernels that TensorRT-RTX compiled while it ran, kept for the next process; on the fakes."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import numpy as np
import pytest
from fakes.gpu import FakeGpu
from fakes.runtime_config import FakeRuntimeCache
from PIL import Image

from gar_edge.runtime import Gar, Options

SCENE = Path(__file__).parents[3] / "examples" / "scene_1.png"
OPTIONS = Options(max_new_tokens=12)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.asarray(Image.open(SCENE).convert("RGB"))


def kernel_file(bundle: Path) -> Path:
    (file,) = (bundle / "engines").glob("kernels-*.cache")
    return file


def one_token(bundle: Path, image: np.ndarray) -> tuple[int, ...]:
    gar = Gar.load(bundle, backend="tensorrt_rtx")
    return gar.open(image).describe(np.ones(image.shape[:2], bool), options=Options(max_new_tokens=2)).tokens


def test_rtx_compiles_once_and_not_in_each_process(own_nano: Path, fake_gpu: FakeGpu, image: np.ndarray) -> None:
    tokens, rtx = one_token(own_nano, image), fake_gpu.rtx
    assert rtx.compiled == 4  # encoder, replay, prefill, decode
    assert "1.7.1.116-Orin-8.7" in kernel_file(own_nano).name
    assert one_token(own_nano, image) == tokens
    assert rtx.compiled == 4
    assert not list((own_nano / "engines").glob(".*"))


@pytest.mark.parametrize("content", [b"cut off", b""])
def test_a_damaged_runtime_cache_is_replaced(
    own_nano: Path, fake_gpu: FakeGpu, image: np.ndarray, content: bytes
) -> None:
    one_token(own_nano, image)
    whole = kernel_file(own_nano).read_bytes()
    kernel_file(own_nano).write_bytes(content)
    one_token(own_nano, image)
    assert fake_gpu.rtx.compiled == 8
    assert kernel_file(own_nano).read_bytes() == whole


def test_kernels_are_kept_before_the_answer_is_there(own_nano: Path, fake_gpu: FakeGpu, image: np.ndarray) -> None:
    """Whoever is killed then does not compile again: each graph's are written as it has run for the first time."""
    gar = Gar.load(own_nano, backend="tensorrt_rtx")
    stream = gar.open(image).stream(None, {1: np.ones(image.shape[:2], bool)}, options=OPTIONS)
    next(iter(stream))

    def kept() -> int:
        cache = FakeRuntimeCache(fake_gpu.rtx)
        assert cache.deserialize(kernel_file(own_nano).read_bytes())
        return len(cache.kernels)

    assert kept() >= 3  # encoder, replay and prefill, which had to run for the first word
    deadline = time.monotonic() + 30
    while kept() < 4 and time.monotonic() < deadline:  # decode's, which the engine's thread is at
        time.sleep(0.01)
    assert kept() == fake_gpu.rtx.compiled == 4


def test_kernels_that_come_later_are_kept_in_the_end(own_nano: Path, fake_gpu: FakeGpu, image: np.ndarray) -> None:
    """TensorRT-RTX specialises kernels in the background."""
    gar = Gar.load(own_nano, backend="tensorrt_rtx")
    gar.open(image).describe(np.ones(image.shape[:2], bool), options=Options(max_new_tokens=2))
    cache = fake_gpu.rtx.engines[-1].contexts[0].cache
    assert cache is not None
    cache.kernels.add(("specialised", 0))
    del gar
    gc.collect()
    assert kernel_file(own_nano).read_bytes() == cache.serialize()


def test_a_runtime_cache_that_cannot_be_written_is_done_without(
    own_nano: Path, fake_gpu: FakeGpu, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_rtx = Gar.load(own_nano, backend="tensorrt_rtx")
    del build_rtx

    def refuse(file: Path, content: bytes) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert one_token(own_nano, image)
    assert not list((own_nano / "engines").glob("kernels-*"))
