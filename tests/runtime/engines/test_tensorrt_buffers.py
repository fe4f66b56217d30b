"""Device memory of the TensorRT back end, on the fakes: arrays of their type, bounds, and wrong ones refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.gpu import FakeGpu

from gar_edge.runtime import Gar, GarBackendError
from gar_edge.runtime.engines.cuda.api import Cuda
from gar_edge.runtime.engines.cuda.memory import Scratch, Stream
from gar_edge.runtime.model.start import start_sequence


@pytest.fixture
def gar(fake_gpu: FakeGpu, built_nano: Path) -> Gar:
    return Gar.load(built_nano, backend="tensorrt")


def test_a_step_allocates_nothing(gar: Gar, fake_gpu: FakeGpu) -> None:
    sequence, embed = start_sequence(gar.pipeline.decoder, 1), np.zeros((1, gar.manifest.dimensions.hidden), np.float16)
    for _ in range(3):  # kernels one by one, captured, launched
        sequence.step(embed).tokens()
    count = len(fake_gpu.cuda.memory.allocations)
    for _ in range(10):
        sequence.step(embed).tokens()
    assert len(fake_gpu.cuda.memory.allocations) == count


def test_writing_beyond_the_cache_is_refused_before_the_engine(gar: Gar) -> None:
    sequence = start_sequence(gar.pipeline.decoder, 1)
    sequence.length = sequence.capacity
    with pytest.raises(GarBackendError, match="the cache holds 704 positions, 705 were asked of it"):
        sequence.step(np.zeros((1, gar.manifest.dimensions.hidden), np.float16))


def test_shapes_outside_every_profile(gar: Gar) -> None:
    dims = gar.manifest.dimensions
    features = gar.pipeline.backend.zeros((7, dims.tile_tokens, dims.hidden), np.dtype(np.float16))
    with pytest.raises(
        GarBackendError, match=r"roi_replay: the engine was built for at most tiles 5.*given features \[7"
    ):
        gar.pipeline.vision.roi_replay(features, (3, 2), [(0.0, 0.0, 1.0, 1.0)])


@pytest.mark.parametrize("wrong", ["dtype", "shape", "foreign", "alias", "host dtype", "alignment"])
def test_wrong_buffers_never_reach_the_engine(gar: Gar, wrong: str) -> None:
    runner, dims = gar.pipeline.decoder, gar.manifest.dimensions
    zeros, half = gar.pipeline.backend.zeros, np.dtype(np.float16)
    cache = (1, dims.kv_heads, 704, dims.head_dim)
    inputs: dict[str, Any] = {name: zeros(cache, half) for name in runner.ports.aliases.values()}
    outputs: dict[str, Any] = {out: inputs[source] for out, source in runner.ports.aliases.items()}
    outputs["logits"], outputs["tokens"] = zeros((1, dims.vocab), half), zeros((1,), np.dtype(np.int64))
    inputs["inputs_embeds"] = zeros((1, 1, dims.hidden), half)
    inputs["write_index"] = np.zeros(1, np.int64)
    inputs["attention_mask"] = np.ones((1, 1, 1, 704), np.bool_)
    inputs["select"] = np.zeros(1, np.int64)
    runner.session.bind(inputs, outputs)()
    kinds: dict[str, type[Exception]] = {"foreign": TypeError, "shape": GarBackendError, "alignment": GarBackendError}
    if wrong == "dtype":
        outputs["logits"] = zeros((1, dims.vocab), np.dtype(np.float32))
    elif wrong == "shape":
        inputs["attention_mask"] = np.ones((1, 1, 1, 700), np.bool_)
    elif wrong == "foreign":
        other = Gar.load(gar.pipeline.bundle.folder, backend="onnxruntime")
        outputs["logits"] = other.pipeline.backend.zeros((1, dims.vocab), half)
    elif wrong == "alias":
        outputs["key_cache_0_out"] = zeros(cache, half)
    elif wrong == "host dtype":
        inputs["write_index"] = np.zeros(1, np.int32)
    else:
        inputs["inputs_embeds"] = zeros((2, dims.hidden // 2 + 1), half).reshape(-1).rows(1, dims.hidden + 1)
        inputs["inputs_embeds"] = inputs["inputs_embeds"].reshape(1, 1, dims.hidden)
    with pytest.raises(kinds.get(wrong, ValueError)):
        runner.session.bind(inputs, outputs)


def test_out_of_memory_frees_what_is_spare_then_says_what_to_do(gar: Gar, fake_gpu: FakeGpu) -> None:
    cuda, byte, mebibyte = fake_gpu.cuda, np.dtype(np.uint8), 1 << 20
    cuda.capacity = cuda.used + 8 * mebibyte
    del_me = gar.pipeline.backend.empty((6 * mebibyte,), byte)
    del del_me
    gar.pipeline.backend.empty((8 * mebibyte,), byte)  # fits only where the spare 6 are
    with pytest.raises(GarBackendError, match=r"out of GPU memory for a buffer of 16 MiB.*gar-engine build --capacity"):
        gar.pipeline.backend.empty((16 * mebibyte,), byte)


def test_a_block_to_work_in_outlives_a_larger_one(fake_gpu: FakeGpu) -> None:
    """A captured graph goes on using the one that it was captured with."""
    cuda = fake_gpu.cuda
    scratch = Scratch(Stream(Cuda(cuda), "wait"))
    scratch.reserve(1000)
    first = scratch.take()
    scratch.reserve(500)
    assert scratch.take() is first
    scratch.reserve(5000)
    second = scratch.take()
    assert (first.size, second.size) == (1024, 5120)
    assert cuda.used == 1024 + 5120


def test_buffers_are_arrays_of_their_dtype(gar: Gar) -> None:
    values = np.arange(24, dtype=np.float64).reshape(4, 6)
    buffer = gar.pipeline.backend.zeros((4, 6), np.dtype(np.float16))
    assert not buffer.read().any()
    buffer.write(values)
    values[:] = -1  # what was queued is what was written
    np.testing.assert_array_equal(buffer.read(), np.arange(24, dtype=np.float16).reshape(4, 6))
    np.testing.assert_array_equal(buffer.rows(1, 3).reshape(3, -1).read(), np.arange(6, 18).reshape(3, 4))
    other = gar.pipeline.backend.empty((2, 6), np.dtype(np.float16))
    other.copy_from(buffer.rows(2, 4))
    buffer.rows(2, 4).clear()
    np.testing.assert_array_equal(other.read(), np.arange(12, 24).reshape(2, 6))
    assert not buffer.rows(2, 4).read().any()
    with pytest.raises(IndexError, match="rows 3 to 5 of 4"):
        buffer.rows(3, 5)
    with pytest.raises(ValueError, match="cannot be seen as"):
        buffer.reshape(5, 5)
    with pytest.raises(ValueError, match=r"shape \(6, 4\) for a buffer of shape \(4, 6\)"):
        buffer.write(values.T)
    with pytest.raises(ValueError, match="for a buffer of"):
        other.copy_from(buffer)
