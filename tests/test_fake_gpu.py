"""The fakes' own rules: each broken one is caught, and what follows the rules works."""

from __future__ import annotations

import ctypes
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda, FakeStream, Violation
from fake_tensorrt import FakeContext, FakeProfile, FakeTensorRt, ILogger, Plan

from gar_edge.runtime.tensorrt.onnx_file import fix_dimensions, strip_functions

CAPACITY = 64
HIDDEN, HEADS, WIDTH, LAYERS = 128, 2, 32, 4  # gar-nano's


class Errors(ILogger):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def log(self, severity: int, msg: str) -> None:
        self.messages.append(msg)


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def trt(cuda: FakeCuda) -> FakeTensorRt:
    return FakeTensorRt(cuda)


@pytest.fixture
def stream(cuda: FakeCuda) -> FakeStream:
    return cuda.cudaStreamCreateWithFlags(1)[1]


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
    engine = trt.Runtime(Errors()).deserialize_cuda_engine(
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
    return Decoder(cuda, stream, engine.create_execution_context(), shapes, addresses)


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


BROKEN: dict[Callable[[Decoder], None], str] = {
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


@pytest.mark.parametrize("name", ["cudaMalloc", "cudaMallocHost", "cudaFree", "cudaFreeHost", "cudaStreamSynchronize"])
def test_nothing_waits_or_allocates_inside_a_capture(cuda: FakeCuda, stream: FakeStream, name: str) -> None:
    address = {"cudaFree": cuda.cudaMalloc(8)[1], "cudaFreeHost": cuda.cudaMallocHost(8)[1]}
    cuda.cudaStreamBeginCapture(stream, 1)
    argument = stream if name == "cudaStreamSynchronize" else address.get(name, 8)
    with pytest.raises(Violation, match="while a stream is captured"):
        getattr(cuda, name)(argument)


def test_captures_begin_and_end_once(cuda: FakeCuda, stream: FakeStream) -> None:
    with pytest.raises(Violation, match="not captured"):
        cuda.cudaStreamEndCapture(stream)
    cuda.cudaStreamBeginCapture(stream, 1)
    with pytest.raises(Violation, match="captured already"):
        cuda.cudaStreamBeginCapture(stream, 1)


def test_copies_happen_when_the_stream_is_waited_for(cuda: FakeCuda, stream: FakeStream) -> None:
    pinned, back, device = cuda.cudaMallocHost(8)[1], cuda.cudaMallocHost(8)[1], cuda.cudaMalloc(8)[1]
    value = ctypes.c_int64.from_address(pinned)
    value.value = 5
    cuda.cudaMemcpyAsync(device, pinned, 8, 1, stream)
    cuda.cudaMemcpyAsync(back, device, 8, 2, stream)
    value.value = 6  # too early: the copy has not happened yet
    assert ctypes.c_int64.from_address(back).value not in (5, 6)
    cuda.cudaStreamSynchronize(stream)
    assert ctypes.c_int64.from_address(back).value == 6


@pytest.mark.parametrize("case", ["pageable source", "pageable target", "too long", "host to host", "freed"])
def test_copies_are_checked(cuda: FakeCuda, stream: FakeStream, case: str) -> None:
    pinned, device = cuda.cudaMallocHost(8)[1], cuda.cudaMalloc(8)[1]
    pageable = np.zeros(8, np.uint8).ctypes.data
    if case == "freed":
        cuda.cudaFree(device)
    arguments: dict[str, tuple[int, int, int, int]] = {
        "pageable source": (device, pageable, 8, 1),
        "pageable target": (pageable, device, 8, 2),
        "too long": (device, pinned, 9, 1),
        "host to host": (pinned, pinned, 8, 3),
        "freed": (device, pinned, 8, 1),
    }
    with pytest.raises(Violation):
        cuda.cudaMemcpyAsync(*arguments[case], stream)


def test_memory_is_freed_once_and_as_what_it_is(cuda: FakeCuda) -> None:
    device = cuda.cudaMalloc(8)[1]
    with pytest.raises(Violation, match="never allocated as pinned"):
        cuda.cudaFreeHost(device)
    cuda.cudaFree(device)
    with pytest.raises(Violation, match="freed twice"):
        cuda.cudaFree(device)


def test_destroyed_streams_are_gone(cuda: FakeCuda, stream: FakeStream) -> None:
    cuda.cudaStreamDestroy(stream)
    with pytest.raises(Violation, match="not one that was created"):
        cuda.cudaStreamSynchronize(stream)
    with pytest.raises(Violation, match="blocking stream"):
        cuda.cudaStreamCreateWithFlags(0)


def parser(trt: FakeTensorRt, model: bytes) -> tuple[Any, bool]:
    builder = trt.Builder(Errors())
    network = builder.create_network(1)
    made = trt.OnnxParser(network, Errors())
    return made, made.parse(model, "model.onnx")


def test_the_parser_wants_a_static_capacity(trt: FakeTensorRt, half_nano: Path) -> None:
    made, parsed = parser(trt, (half_nano / "decoder.onnx").read_bytes())
    assert not parsed
    assert "static sequence length" in made.get_error(0).desc()


def test_the_parser_wants_a_body_or_a_plugin(trt: FakeTensorRt, half_nano: Path) -> None:
    model = (half_nano / "roi_replay.onnx").read_bytes()
    assert parser(trt, model)[1]
    assert not parser(trt, strip_functions(model))[1]
    trt.registry.creators.append("a library")
    assert parser(trt, strip_functions(model))[1]


@pytest.mark.parametrize("missing", ["grid", "boxes"])
def test_the_builder_wants_every_range(trt: FakeTensorRt, half_nano: Path, missing: str) -> None:
    builder = trt.Builder(Errors())
    network = builder.create_network(1)
    assert trt.OnnxParser(network, Errors()).parse((half_nano / "roi_replay.onnx").read_bytes(), "model.onnx")
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    profile.set_shape("features", *([tiles, 16, HIDDEN] for tiles in (2, 3, 5)))
    if missing != "boxes":
        profile.set_shape("boxes", [1, 4], [1, 4], [5, 4])
    if missing != "grid":
        profile.set_shape_input("grid", [1, 1], [2, 2], [2, 2])
    config.add_optimization_profile(profile)
    config.progress_monitor = Quiet()
    with pytest.raises(Violation, match=missing):
        builder.build_serialized_network(network, config)


class Quiet:
    def phase_start(self, *_: object) -> None: ...

    def phase_finish(self, *_: object) -> None: ...

    def step_complete(self, *_: object) -> bool:
        return True


def test_profiles_are_in_order_and_networks_strongly_typed(trt: FakeTensorRt) -> None:
    with pytest.raises(Violation, match="out of order"):
        FakeProfile().set_shape("x", [2], [1], [3])
    with pytest.raises(Violation, match="strongly typed"):
        trt.Builder(Errors()).create_network(0)


def replay_context(trt: FakeTensorRt, half_nano: Path, stream: FakeStream) -> FakeContext:
    file = half_nano / "roi_replay.onnx"
    profile = FakeProfile()
    profile.set_shape("features", *([tiles, 16, HIDDEN] for tiles in (2, 3, 5)))
    profile.set_shape("boxes", [1, 4], [1, 4], [5, 4])
    profile.set_shape_input("grid", [1, 1], [2, 2], [2, 2])
    engine = trt.Runtime(Errors()).deserialize_cuda_engine(
        pickle.dumps(Plan(file.read_bytes(), str(file), [profile], trt.__version__, trt.device, False))
    )
    assert engine is not None
    context = engine.create_execution_context()
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


def test_engines_of_elsewhere_are_refused(trt: FakeTensorRt, half_nano: Path) -> None:
    file = half_nano / "roi_replay.onnx"
    for version, device in (("9.9", trt.device), (trt.__version__, ("other", (8, 7)))):
        errors = Errors()
        content = pickle.dumps(Plan(file.read_bytes(), str(file), [], version, device, False))
        assert trt.Runtime(errors).deserialize_cuda_engine(content) is None
        assert "not compatible" in errors.messages[0]
    errors = Errors()
    assert trt.Runtime(errors).deserialize_cuda_engine(b"no engine") is None
    assert errors.messages == ["Magic tag does not match"]


def test_a_plugin_library_is_loaded_once(trt: FakeTensorRt, tmp_path: Path) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(b"plugin")
    trt.registry.load_library(str(library))
    with pytest.raises(Violation, match="loaded twice"):
        trt.registry.load_library(str(library))


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
