"""Device memory in pieces on the faked driver: what is asked of it, what comes back, and where there is none."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes.cuda import FakeCuda, FakeStream, Kind, Violation
from fakes.cuda_driver import FakeDriver
from fakes.gpu import FakeGpu
from helpers.needs import from_dev

from gar_edge.runtime import Gar, GarBackendError, Options
from gar_edge.runtime.engines.cuda import device_memory, virtual_memory
from gar_edge.runtime.engines.cuda.api import Cuda, CudaError
from gar_edge.runtime.engines.cuda.device_memory import DeviceMemory
from gar_edge.runtime.engines.cuda.memory import DeviceBuffer, Stream
from gar_edge.runtime.engines.tensorrt.allocator import allocator

MEBIBYTE = 1 << 20


@pytest.fixture
def driver(cuda: FakeCuda) -> FakeDriver:
    return FakeDriver(cuda)


@pytest.fixture
def memory(cuda: FakeCuda, driver: FakeDriver) -> DeviceMemory:
    return DeviceMemory(Cuda(cuda, driver), lambda: None)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> int:
    """Pieces so small that gar-nano's weights and caches are of several."""
    for module in (virtual_memory, device_memory):
        monkeypatch.setattr(module, "PIECE", 64 << 10)
    return 64 << 10


def test_a_range_is_of_pieces_and_no_larger_than_asked_for(
    cuda: FakeCuda, driver: FakeDriver, memory: DeviceMemory
) -> None:
    """150 MiB and a byte: two pieces of 64 MiB and one of what is left, in multiples of 2 MiB."""
    address = memory.allocate(150 * MEBIBYTE + 1)
    (found,) = driver.reservations.values()
    assert (found.address, found.size) == (address, 152 * MEBIBYTE)
    assert [size // MEBIBYTE for size, _ in found.mappings.values()] == [64, 64, 24]
    assert all(handle.released for _, handle in found.mappings.values())  # the mappings alone keep them
    assert cuda.used == 152 * MEBIBYTE
    cuda.memory.check(address, 150 * MEBIBYTE + 1, Kind.DEVICE, "all of it")
    memory.free(address)
    assert (cuda.used, driver.reservations) == (0, {})
    with pytest.raises(Violation, match="is freed"):
        cuda.memory.check(address, 1, Kind.DEVICE, "what is gone")


def test_pieces_are_multiples_of_any_granularity(cuda: FakeCuda) -> None:
    """48 MiB divide 64 no better than once; a granularity above the limit makes pieces of one granule."""
    for granularity, pieces in ((48, [48, 48]), (96, [96])):
        driver = FakeDriver(cuda, granularity * MEBIBYTE)
        DeviceMemory(Cuda(cuda, driver), lambda: None).allocate(65 * MEBIBYTE)
        (found,) = driver.reservations.values()
        assert [size // MEBIBYTE for size, _ in found.mappings.values()] == pieces


def test_small_blocks_are_allocated_plainly(cuda: FakeCuda, driver: FakeDriver, memory: DeviceMemory) -> None:
    address = memory.allocate(64 * MEBIBYTE)
    assert (cuda.used, cuda.in_pieces) == (64 * MEBIBYTE, 0)
    memory.free(address)
    assert cuda.used == 0


def test_a_refused_piece_gives_back_those_before_it(cuda: FakeCuda, driver: FakeDriver, memory: DeviceMemory) -> None:
    cuda.capacity = 150 * MEBIBYTE
    with pytest.raises(CudaError, match="cuMemCreate failed: out of memory"):
        memory.allocate(200 * MEBIBYTE)
    assert (cuda.used, driver.reservations, memory.refused) == (0, {}, 200 * MEBIBYTE)
    memory.free(memory.allocate(128 * MEBIBYTE))


@pytest.mark.parametrize("why", ["device", "driver", "cuda-python", "reservation"])
def test_without_such_calls_memory_is_allocated_plainly(cuda: FakeCuda, driver: FakeDriver, why: str) -> None:
    if why == "device":
        driver.supported = False
    elif why == "reservation":
        driver.widest = 128 * MEBIBYTE
    elif why == "driver":
        driver.cuInit = lambda flags: (_ for _ in ()).throw(RuntimeError("not found"))  # type: ignore[method-assign]
    memory = DeviceMemory(Cuda(cuda, None if why == "cuda-python" else driver), lambda: None)
    address = memory.allocate(200 * MEBIBYTE)
    assert (cuda.used, cuda.in_pieces) == (200 * MEBIBYTE, 0)
    memory.free(address)
    assert cuda.used == 0


def test_nothing_is_unmapped_while_the_gpu_may_use_it(cuda: FakeCuda, driver: FakeDriver) -> None:
    """Which the fake refuses: here a copy is queued when memory runs out and spare blocks are freed."""
    stream, byte = Stream(Cuda(cuda, driver), "less"), np.dtype(np.uint8)
    cuda.capacity = 200 * MEBIBYTE
    block = DeviceBuffer.new(stream, (100 * MEBIBYTE,), byte)
    block.rows(0, 16).write(np.zeros(16, np.uint8))
    del block
    assert DeviceBuffer.new(stream, (180 * MEBIBYTE,), byte).address
    assert cuda.in_pieces == 180 * MEBIBYTE


def test_the_1bs_sizes_fit_where_no_allocation_may_be_larger(cuda: FakeCuda, driver: FakeDriver) -> None:
    """Engines of the int8 1B, caches of its default capacity and scratch, out of pieces; plainly none of them fits."""
    sizes = {"encoder": 300_937_216, "decoder": 1_236_000_000, "cache": 192 * MEBIBYTE, "scratch": 201_326_592}
    cuda.capacity, cuda.largest = 7 << 30, 64 * MEBIBYTE
    memory = DeviceMemory(Cuda(cuda, driver), lambda: None)
    addresses = [memory.allocate(size) for size in sizes.values()]
    assert sum(sizes.values()) <= cuda.used < sum(sizes.values()) + 4 * driver.granularity
    plain = DeviceMemory(Cuda(cuda), lambda: None)
    for size in sizes.values():
        with pytest.raises(CudaError, match="cudaMalloc failed: out of memory"):
            plain.allocate(size)
    for address in addresses:
        memory.free(address)
    assert cuda.used == 0


def test_gar_nano_answers_alike_where_no_allocation_may_be_larger(
    own_nano: Path, fake_gpu: FakeGpu, picture: np.ndarray, small_pieces: int
) -> None:
    """Weights and caches of several pieces, built, loaded, run and freed; and refused where there are no pieces."""
    fake_gpu.cuda.largest, fake_gpu.driver.granularity = small_pieces, 4 << 10
    mask = np.zeros(picture.shape[:2], bool)
    mask[20:60, 30:80] = True
    options = Options(max_new_tokens=6)
    gar = Gar.load(own_nano, backend="tensorrt")
    found = gar.open(picture).describe(mask, options=options).tokens
    wanted = Gar.load(own_nano, backend="onnxruntime").open(picture).describe(mask, options=options).tokens
    assert found == wanted
    assert any(len(one.mappings) > 10 for one in fake_gpu.driver.reservations.values())
    del gar
    gc.collect()
    assert (fake_gpu.cuda.used, fake_gpu.driver.reservations) == (0, {})
    fake_gpu.driver.supported = False
    with pytest.raises(GarBackendError, match=r"out of GPU memory for \d+ MiB of the engine; ask with fewer tiles"):
        Gar.load(own_nano, backend="tensorrt")


def test_nvmaps_error_12_is_told_from_memory_that_is_full(
    own_nano: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building, loading and allocating on a Jetson: with memory to spare the advice is another than without."""
    fake_gpu.cuda.integrated, fake_gpu.driver.supported = True, False
    free = {"bytes": 6 << 30}
    monkeypatch.setattr("gar_edge.runtime.engines.cuda.api.available_memory", lambda: free["bytes"])
    nvmap = r"; 6144 MiB are free, so this is NvMap's error 12: stop other programs .* export with --split-head$"
    fake_gpu.cuda.largest = 64 << 10
    with pytest.raises(GarBackendError, match=r"cannot build the engine \(Requested amount of GPU memory .*" + nvmap):
        Gar.load(own_nano, backend="tensorrt")
    fake_gpu.cuda.largest = None
    gar = Gar.load(own_nano, backend="tensorrt")
    fake_gpu.cuda.largest = 64 << 10
    with pytest.raises(GarBackendError, match=r"for \d+ MiB of the engine; ask with .*" + nvmap):
        Gar.load(own_nano, backend="tensorrt")
    with pytest.raises(GarBackendError, match=r"a buffer of 2 MiB; ask with .*" + nvmap):
        gar.pipeline.backend.empty((2 * MEBIBYTE,), np.dtype(np.uint8))
    free["bytes"] = 1 << 20
    with pytest.raises(GarBackendError, match=r"a buffer of 2 MiB; ask with .* --max-tiles$"):
        gar.pipeline.backend.empty((2 * MEBIBYTE,), np.dtype(np.uint8))


def test_a_real_tensorrt_calls_the_allocator(cuda: FakeCuda, memory: DeviceMemory) -> None:
    """TensorRT-RTX's own Python module, from C++ into it and back, over the fake device."""
    trt = pytest.importorskip("tensorrt_rtx", reason=from_dev("tensorrt-rtx"))
    ours, cuda.capacity = allocator(trt, memory), 200 * MEBIBYTE
    given = trt.IGpuAllocator.allocate_async(ours, 100 * MEBIBYTE, 256, 0, 77)
    assert cuda.used == 100 * MEBIBYTE
    trt.IGpuAllocator.allocate_async(ours, 150 * MEBIBYTE, 256, 0, 77)
    trt.IGpuAllocator.allocate_async(ours, 0, 256, 0, 77)
    assert (cuda.used, memory.refused) == (100 * MEBIBYTE, 150 * MEBIBYTE)
    assert trt.IGpuAllocator.deallocate_async(ours, given, 77)
    assert cuda.used == 0


GOOD = SimpleNamespace(type=1, location=SimpleNamespace(type=1, id=0))
READ_AND_WRITE = SimpleNamespace(flags=3, location=SimpleNamespace(type=1, id=0))


class Broken:
    """Breaks one rule of the driver's, with all else in order: half of a range is mapped, without access."""

    def __init__(self, driver: FakeDriver) -> None:
        self.driver, self.step = driver, driver.granularity
        driver.cuInit(0)
        self.address = driver.cuMemAddressReserve(2 * self.step, 0, 0, 0)[1]
        self.handle, self.other = (driver.cuMemCreate(self.step, GOOD, 0)[1] for _ in range(2))
        driver.cuMemMap(self.address, self.step, 0, self.handle, 0)

    def initialised(self) -> None:
        FakeDriver(self.driver.cuda).cuDeviceGet(0)

    def size(self) -> None:
        self.driver.cuMemCreate(self.step + 1, GOOD, 0)

    def location(self) -> None:
        self.driver.cuMemCreate(self.step, SimpleNamespace(type=1, location=SimpleNamespace(type=1, id=1)), 0)

    def reserved(self) -> None:
        self.driver.cuMemMap(self.address + 2 * self.step, self.step, 0, self.other, 0)

    def aligned(self) -> None:
        self.driver.cuMemMap(self.address + self.step + 1, self.step, 0, self.other, 0)

    def twice(self) -> None:
        self.driver.cuMemMap(self.address, self.step, 0, self.other, 0)

    def larger(self) -> None:
        self.driver.cuMemMap(self.address, 2 * self.step, 0, self.other, 0)

    def released(self) -> None:
        self.driver.cuMemRelease(self.handle)
        self.driver.cuMemRelease(self.handle)

    def access(self) -> None:
        self.driver.cuda.memory.check(self.address, 1, Kind.DEVICE, "a kernel")

    def gap(self) -> None:
        self.driver.cuMemSetAccess(self.address, 2 * self.step, [READ_AND_WRITE], 1)

    def mapped(self) -> None:
        self.driver.cuMemAddressFree(self.address, 2 * self.step)

    def part(self) -> None:
        self.driver.cuMemUnmap(self.address, 2 * self.step)

    def queued(self) -> None:
        self.driver.cuMemSetAccess(self.address, self.step, [READ_AND_WRITE], 1)
        self.driver.cuda.stream(0x5000).put(lambda: None)
        self.driver.cuMemUnmap(self.address, self.step)

    def reservation(self) -> None:
        self.driver.cuMemUnmap(self.address, self.step)
        self.driver.cuMemAddressFree(self.address, self.step)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Broken.initialised, "not initialised"), (Broken.size, "no multiple"), (Broken.location, "not the device's"),
        (Broken.reserved, "not reserved"), (Broken.aligned, "no multiple"), (Broken.twice, "some is already"),
        (Broken.larger, "released, or smaller"), (Broken.released, "released twice"),
        (Broken.access, "not device memory"),
        (Broken.gap, "nothing is mapped"), (Broken.mapped, "mapped into"), (Broken.part, "one whole mapping"),
        (Broken.queued, "work is queued"), (Broken.reservation, "whole reservation"),
    ],
)  # fmt: skip
def test_the_fake_refuses(driver: FakeDriver, stream: FakeStream, rule: Callable[[Broken], None], said: str) -> None:
    with pytest.raises(Violation, match=said):
        rule(Broken(driver))
