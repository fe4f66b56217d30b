"""The fake's engines: each broken rule of running one is caught, and what follows the rules works."""

from __future__ import annotations

import ctypes
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda, FakeStream, Kind, Violation
from fake_runtime_config import FakeRuntimeCache
from fake_tensorrt import FakeTensorRt, ILogger
from fake_tensorrt_engine import FakeContext, FakeProfile, Plan

from gar_edge.runtime.tensorrt.onnx_file import fix_dimensions

CAPACITY = 64
HIDDEN, HEADS, WIDTH = 128, 2, 32  # gar-nano's


@dataclass
class Decoder:
    """A decoder's context on its one profile, with every tensor's memory."""

    cuda: FakeCuda
    stream: FakeStream
    context: FakeContext
    shapes: dict[str, tuple[int, ...]]
    addresses: dict[str, int]

    def prepare(self) -> None:
        self.context.set_optimization_profile_async(0, self.stream.handle)
        for name, shape in self.shapes.items():
            self.context.set_input_shape(name, shape)
        for name, address in self.addresses.items():
            self.context.set_tensor_address(name, address)

    def enqueue(self) -> None:
        self.context.execute_async_v3(self.stream.handle)

    def run(self) -> None:
        self.prepare()
        self.enqueue()
        self.cuda.cudaStreamSynchronize(self.stream)


@pytest.fixture
def decoder(half_nano: Path, cuda: FakeCuda, trt: FakeTensorRt, stream: FakeStream) -> Decoder:
    file = half_nano / "decoder.onnx"
    model = fix_dimensions(file.read_bytes(), {"batch": 1, "capacity": CAPACITY})
    profile = FakeProfile()
    profile.set_shape("select", (1,), (1,), (4,))
    for name, rest in (("inputs_embeds", [HIDDEN]), ("attention_mask", [CAPACITY])):
        lead = [1] if name == "inputs_embeds" else [1, 1]
        profile.set_shape(name, *([*lead, length, *rest] for length in (1, 4, 8)))
    engine = trt.Runtime(ILogger()).deserialize_cuda_engine(
        pickle.dumps(Plan(model, str(file), [profile], trt.__version__, trt.device, False))
    )
    assert engine is not None
    cache = (1, HEADS, CAPACITY, WIDTH)
    shapes: dict[str, tuple[int, ...]] = {"inputs_embeds": (1, 4, HIDDEN), "write_index": (1,), "select": (1,)}
    shapes |= {"attention_mask": (1, 1, 4, CAPACITY)} | dict.fromkeys(engine.aliases.values(), cache)
    addresses = {}
    for name, shape in {**shapes, "logits": (1, 1000), "tokens": (1,)}.items():
        addresses[name] = cuda.cudaMalloc(int(np.prod(shape)) * 8)[1]
        ctypes.memset(addresses[name], 0, int(np.prod(shape)) * 8)
    addresses |= {output: addresses[source] for output, source in engine.aliases.items()}
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    context.set_device_memory(cuda.cudaMalloc(engine.device_memory_size_v2)[1], engine.device_memory_size_v2)
    return Decoder(cuda, stream, context, shapes, addresses)


def test_a_decoder_by_the_rules_runs(decoder: Decoder) -> None:
    decoder.run()
    decoder.enqueue()
    decoder.cuda.cudaStreamSynchronize(decoder.stream)
    assert decoder.cuda.calls["enqueue"] == 2


def write_index(decoder: Decoder, value: int) -> None:
    ctypes.c_int64.from_address(decoder.addresses["write_index"]).value = value


def forget_address(decoder: Decoder) -> None:
    decoder.addresses["logits"] = 0
    decoder.run()


def forget_shape(decoder: Decoder) -> None:
    del decoder.shapes["inputs_embeds"]
    decoder.run()


def forget_profile(decoder: Decoder) -> None:
    decoder.context.execute_async_v3(decoder.stream.handle)


def shape_before_profile(decoder: Decoder) -> None:
    decoder.context.set_input_shape("inputs_embeds", (1, 4, HIDDEN))


def shape_outside(decoder: Decoder) -> None:
    decoder.shapes["inputs_embeds"] = (1, 9, HIDDEN)
    decoder.run()


def shape_against_the_network(decoder: Decoder) -> None:
    decoder.shapes["key_cache_0"] = (1, HEADS, CAPACITY + 1, WIDTH)
    decoder.run()


def unknown_input(decoder: Decoder) -> None:
    decoder.shapes["pixels"] = (1,)
    decoder.run()


def unknown_tensor(decoder: Decoder) -> None:
    decoder.addresses["pixels"] = decoder.addresses["logits"]
    decoder.run()


def small_buffer(decoder: Decoder) -> None:
    decoder.addresses["logits"] = decoder.cuda.cudaMalloc(256)[1]
    decoder.run()


def host_pointer(decoder: Decoder) -> None:
    decoder.addresses["logits"] = decoder.cuda.cudaMallocHost(1 << 14)[1]
    decoder.run()


def pointer_from_nowhere(decoder: Decoder) -> None:
    decoder.addresses["logits"] = 256
    decoder.run()


def misaligned(decoder: Decoder) -> None:
    decoder.addresses["logits"] += 2
    decoder.run()


def cache_not_in_place(decoder: Decoder) -> None:
    decoder.addresses["value_cache_1_out"] = decoder.cuda.cudaMalloc(1 << 16)[1]
    decoder.run()


def write_past_the_end(decoder: Decoder) -> None:
    write_index(decoder, CAPACITY - 3)
    decoder.run()


def write_before_the_beginning(decoder: Decoder) -> None:
    write_index(decoder, -1)
    decoder.run()


def freed_before(decoder: Decoder) -> None:
    decoder.cuda.cudaFree(decoder.addresses["logits"])
    decoder.run()


def other_stream(decoder: Decoder) -> None:
    decoder.prepare()
    decoder.context.execute_async_v3(decoder.cuda.cudaStreamCreateWithFlags(1)[1].handle)


def default_stream(decoder: Decoder) -> None:
    decoder.prepare()
    decoder.context.execute_async_v3(0)


def capture_without_warming_up(decoder: Decoder) -> None:
    decoder.prepare()
    decoder.cuda.cudaStreamBeginCapture(decoder.stream, 1)
    decoder.enqueue()


def nothing_to_work_in(decoder: Decoder) -> None:
    engine = decoder.context.engine
    decoder.context = engine.create_execution_context(engine.module.ExecutionContextAllocationStrategy.USER_MANAGED)
    decoder.run()


def too_little_to_work_in(decoder: Decoder) -> None:
    decoder.context.set_device_memory(decoder.cuda.cudaMalloc(256)[1], 256)


def freed_while_working_in_it(decoder: Decoder) -> None:
    decoder.prepare()
    decoder.enqueue()
    assert decoder.context.scratch is not None
    decoder.cuda.memory.free(decoder.context.scratch[0], Kind.DEVICE)  # without waiting, as nobody can
    decoder.cuda.cudaStreamSynchronize(decoder.stream)


def memory_of_its_own(decoder: Decoder) -> None:
    engine = decoder.context.engine
    engine.create_execution_context(engine.module.ExecutionContextAllocationStrategy.STATIC)


BROKEN: dict[Callable[[Decoder], None], str] = {
    nothing_to_work_in: "without memory to work in",
    too_little_to_work_in: "256 bytes at",
    freed_while_working_in_it: "scratch memory, when the kernel runs: the memory is freed",
    memory_of_its_own: "allocates memory of its own",
    forget_address: "the address of logits is not set",
    forget_shape: "the shape of inputs_embeds is not set",
    forget_profile: "without a profile",
    shape_before_profile: "before the profile",
    shape_outside: "outside the profile",
    shape_against_the_network: "outside the profile",
    unknown_input: "is not an input",
    unknown_tensor: "no tensor pixels",
    small_buffer: "do not fit",
    host_pointer: "not device memory",
    pointer_from_nowhere: "not device memory",
    misaligned: "not a multiple of 256",
    cache_not_in_place: "does not share the address of value_cache_1",
    write_past_the_end: "leave the cache of 64",
    write_before_the_beginning: "leave the cache of 64",
    freed_before: "is freed",
    other_stream: "another stream",
    default_stream: "not one that was created",
    capture_without_warming_up: "before it was enqueued once",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_tensorrts_rules(decoder: Decoder, broken: Callable[[Decoder], None]) -> None:
    with pytest.raises(Violation, match=BROKEN[broken]):
        broken(decoder)


def test_freeing_waits_but_freed_memory_is_not_used_again(decoder: Decoder) -> None:
    decoder.prepare()
    decoder.enqueue()
    decoder.cuda.cudaFree(decoder.addresses["logits"])  # waits for what was queued
    with pytest.raises(Violation, match="is freed"):
        decoder.enqueue()


def test_a_graph_replays_what_was_captured(decoder: Decoder) -> None:
    cuda, stream = decoder.cuda, decoder.stream
    decoder.run()
    cuda.cudaStreamBeginCapture(stream, 1)
    decoder.enqueue()
    graph = cuda.cudaStreamEndCapture(stream)[1]
    assert stream.queue == []
    executable = cuda.cudaGraphInstantiate(graph, 0)[1]
    cuda.cudaGraphDestroy(graph)
    write_index(decoder, CAPACITY)
    cuda.cudaGraphLaunch(executable, stream)
    with pytest.raises(Violation, match="leave the cache"):  # it reads the buffers as they are then
        cuda.cudaStreamSynchronize(stream)
    cuda.cudaGraphExecDestroy(executable)
    with pytest.raises(Violation, match="destroyed"):
        cuda.cudaGraphLaunch(executable, stream)


def replay_context(trt: FakeTensorRt, half_nano: Path, stream: FakeStream) -> FakeContext:
    file = half_nano / "roi_replay.onnx"
    profile = FakeProfile()
    profile.set_shape("features", *([tiles, 16, HIDDEN] for tiles in (2, 3, 5)))
    profile.set_shape("boxes", [1, 4], [1, 4], [5, 4])
    profile.set_shape_input("grid", [1, 1], [2, 2], [2, 2])
    engine = trt.Runtime(ILogger()).deserialize_cuda_engine(
        pickle.dumps(Plan(file.read_bytes(), str(file), [profile], trt.__version__, trt.device, False))
    )
    assert engine is not None
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    context.set_device_memory(trt.cuda.cudaMalloc(engine.device_memory_size_v2)[1], engine.device_memory_size_v2)
    context.set_optimization_profile_async(0, stream.handle)
    context.set_input_shape("features", (5, 16, HIDDEN))
    context.set_input_shape("boxes", (1, 4))
    for name in ("features", "boxes", "replayed"):
        address = trt.cuda.cudaMalloc(1 << 16)[1]
        ctypes.memset(address, 0, 1 << 16)
        context.set_tensor_address(name, address)
    return context


@pytest.mark.parametrize(
    ("grid", "message"), [((2, 2), None), ((3, 2), "outside the profile"), ("device", "read by the host")]
)
def test_shape_inputs_are_read_on_the_host(
    trt: FakeTensorRt, half_nano: Path, stream: FakeStream, grid: Any, message: str | None
) -> None:
    context = replay_context(trt, half_nano, stream)
    address = trt.cuda.cudaMalloc(256)[1] if grid == "device" else trt.cuda.cudaMallocHost(256)[1]
    if grid != "device":
        (ctypes.c_int64 * 2).from_address(address)[:] = grid
    context.set_tensor_address("grid", address)
    if message is not None:
        with pytest.raises(Violation, match=message):
            context.execute_async_v3(stream.handle)
        return
    context.execute_async_v3(stream.handle)
    trt.cuda.cudaStreamSynchronize(stream)
    trt.cuda.cudaStreamBeginCapture(stream, 1)
    with pytest.raises(Violation, match="reads shapes on the host"):
        context.execute_async_v3(stream.handle)


def test_the_kernels_write_the_cache_where_write_index_says(decoder: Decoder) -> None:
    write_index(decoder, 10)
    rows = np.random.default_rng(0).standard_normal((4, HIDDEN)).astype(np.float16)
    ctypes.memmove(decoder.addresses["inputs_embeds"], rows.ctypes.data, rows.nbytes)
    ctypes.memset(decoder.addresses["attention_mask"], 1, 4 * CAPACITY)
    decoder.run()
    size = HEADS * CAPACITY * WIDTH
    memory = (ctypes.c_uint16 * size).from_address(decoder.addresses["key_cache_0"])
    written = np.frombuffer(memory, np.float16).reshape(HEADS, CAPACITY, WIDTH)
    touched = np.flatnonzero(np.abs(written.astype(np.float32)).sum(axis=(0, 2)))
    assert touched.tolist() == [10, 11, 12, 13]


def test_a_runtime_cache_is_of_one_version_and_device(cuda: FakeCuda) -> None:
    rtx = FakeTensorRt(cuda, "tensorrt_rtx")
    cache = FakeRuntimeCache(rtx)
    cache.kernels.add(("model", 0))
    content = cache.serialize()
    again = FakeRuntimeCache(rtx)
    assert again.deserialize(content)
    assert again.kernels == cache.kernels
    assert not again.deserialize(b"nothing of the kind")
    cuda.device_name = "another"
    other = FakeRuntimeCache(rtx)
    assert not other.deserialize(content)
    assert other.kernels == set()
