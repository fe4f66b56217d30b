# ruff: noqa: N802, N815, N818 - names are CUDA's own
"""CUDA's runtime, faked on the host as strictly as its documentation reads.

Stands in for the module `cuda.bindings.runtime`. Nothing that is queued on a stream happens before the stream is
synchronised, so that whoever reads too early, or changes memory that a queued copy still needs, gets wrong results here
as on a GPU. Addresses are never used twice. A broken rule raises `Violation`, which no product code catches:

- queued work touches only memory that was allocated, is of the right kind, large enough, and not yet freed when it runs
- asynchronous copies to and from the host go through pinned memory
- while a thread captures a stream it synchronises, allocates and frees nothing, and nobody synchronises that stream;
  only a captured stream's capture can end, in the thread that began it (`cudaStreamCaptureModeThreadLocal`)
- streams, graphs and executables are used only while they exist, memory is freed once
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

ALIGNMENT = 256
OUT_OF_MEMORY, NO_DEVICE = 2, 100


class Violation(AssertionError):
    """A rule of CUDA or TensorRT was broken."""


class Kind(Enum):
    DEVICE = "device"
    PINNED = "pinned host"


@dataclass
class Allocation:
    address: int
    size: int
    kind: Kind
    memory: np.ndarray  # kept when freed: the address stays taken
    freed: bool = False
    in_pieces: bool = False  # over memory that `FakeDriver` counts


class Memory:
    """Every allocation there ever was."""

    def __init__(self) -> None:
        self.allocations: list[Allocation] = []

    def allocate(self, size: int, kind: Kind) -> int:
        memory = np.full(size + ALIGNMENT, 0xCD, np.uint8)  # garbage, as on a GPU
        address = memory.ctypes.data + -memory.ctypes.data % ALIGNMENT
        self.allocations.append(Allocation(address, size, kind, memory))
        return address

    def free(self, address: int, kind: Kind) -> None:
        for allocation in self.allocations:
            if allocation.address == address and allocation.kind is kind:
                if allocation.freed:
                    raise Violation(f"{kind.value} memory is freed twice")
                allocation.freed = True
                return
        raise Violation(f"what is freed was never allocated as {kind.value} memory")

    def find(self, address: int) -> Allocation | None:
        for allocation in self.allocations:
            if allocation.address <= address < allocation.address + allocation.size:
                return allocation
        return None

    def check(self, address: int, size: int, kind: Kind, what: str) -> None:
        """Raise `Violation` unless `size` bytes from `address` on are live memory of a kind."""
        found = self.find(address)
        if found is None or found.kind is not kind:
            raise Violation(f"{what}: not {kind.value} memory")
        if found.freed:
            raise Violation(f"{what}: the memory is freed")
        if address + size > found.address + found.size:
            raise Violation(f"{what}: {size} bytes do not fit the {found.address + found.size - address} there are")


Work = Callable[[], None]


@dataclass
class FakeStream:
    """Work that is queued, and while capturing the work that is recorded instead."""

    handle: int
    queue: list[Work] = field(default_factory=list)
    recording: list[Work] | None = None
    recorder: int | None = None  # the thread that captures
    destroyed: bool = False

    def __int__(self) -> int:
        return self.handle

    def put(self, work: Work) -> None:
        (self.queue if self.recording is None else self.recording).append(work)


@dataclass
class FakeGraph:
    work: list[Work]
    destroyed: bool = False


class FakeStatus(IntEnum):
    """cudaError_t, as far as it is needed."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = OUT_OF_MEMORY
    cudaErrorNoDevice = NO_DEVICE


class FakeCuda(ModuleType):
    """The module. `present`: whether there is a GPU. `calls`: how often what.

    `capacity`: bytes of device memory. `largest`: of one allocation, None for any. `in_pieces`: what `FakeDriver` gave.
    """

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = IntEnum(
        "cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2, "cudaMemcpyDeviceToDevice": 3}
    )
    cudaStreamCaptureMode = IntEnum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})
    cudaDeviceAttr = IntEnum(
        "cudaDeviceAttr",
        {
            "cudaDevAttrIntegrated": 18,
            "cudaDevAttrComputeCapabilityMajor": 75,
            "cudaDevAttrComputeCapabilityMinor": 76,
        },
    )

    def __init__(self, name: str = "Orin", capability: tuple[int, int] = (8, 7), integrated: bool = False) -> None:
        super().__init__("cuda.bindings.runtime")
        self.device_name = name
        self.capability = capability
        self.integrated = integrated
        self.present = True
        self.capacity = 1 << 30
        self.largest: int | None = None
        self.in_pieces = 0
        self.memory = Memory()
        self.streams: dict[int, FakeStream] = {}
        self.calls: Counter[str] = Counter()
        self.current: set[int] = set()  # threads whose context is the device's
        self._finishing = threading.RLock()

    def stream(self, handle: Any) -> FakeStream:
        """A live stream by its handle; the default stream counts as an error, for TensorRT advises against it."""
        found = self.streams.get(int(handle))
        if found is None or found.destroyed:
            raise Violation(f"stream {int(handle)} is not one that was created")
        return found

    @property
    def used(self) -> int:
        """Bytes of device memory that are allocated."""
        plain = [one for one in self.memory.allocations if one.kind is Kind.DEVICE and not one.in_pieces]
        return sum(one.size for one in plain if not one.freed) + self.in_pieces

    def has_room(self, size: int) -> bool:
        """Whether so many bytes can be had in one allocation."""
        return self.used + size <= self.capacity and (self.largest is None or size <= self.largest)

    def finish(self) -> None:
        """Do everything that is queued. Whoever waits beside another thread that does waits for what that one does."""
        with self._finishing:
            for stream in list(self.streams.values()):
                while stream.queue:
                    stream.queue.pop(0)()

    # Devices

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        self.current.add(threading.get_ident())
        return (FakeStatus.cudaSuccess,)

    def cudaDeviceSynchronize(self) -> tuple[Any, ...]:
        if any(stream.recording is not None for stream in self.streams.values()):
            raise Violation("cudaDeviceSynchronize while a stream is captured")
        self.finish()
        return (FakeStatus.cudaSuccess,)

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return (FakeStatus.cudaSuccess, 1) if self.present else (FakeStatus.cudaErrorNoDevice, None)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple[Any, ...]:
        kinds = self.cudaDeviceAttr
        values = {
            kinds.cudaDevAttrIntegrated: int(self.integrated),
            kinds.cudaDevAttrComputeCapabilityMajor: self.capability[0],
            kinds.cudaDevAttrComputeCapabilityMinor: self.capability[1],
        }
        return FakeStatus.cudaSuccess, values[attribute]

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return FakeStatus.cudaSuccess, SimpleNamespace(name=self.device_name.encode())

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return FakeStatus.cudaSuccess, self.capacity - self.used, self.capacity

    def cudaGetErrorString(self, status: int) -> tuple[Any, ...]:
        return FakeStatus.cudaSuccess, {OUT_OF_MEMORY: b"out of memory", NO_DEVICE: b"no device"}[int(status)]

    # Memory

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        self._refuse_in_capture("cudaMalloc")
        if not self.has_room(size):
            return FakeStatus.cudaErrorMemoryAllocation, None
        return FakeStatus.cudaSuccess, self.memory.allocate(size, Kind.DEVICE)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        self._refuse_in_capture("cudaMallocHost")
        return FakeStatus.cudaSuccess, self.memory.allocate(size, Kind.PINNED)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        return self._release("cudaFree", address, Kind.DEVICE)

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        return self._release("cudaFreeHost", address, Kind.PINNED)

    def _release(self, name: str, address: int, kind: Kind) -> tuple[Any, ...]:
        self._refuse_in_capture(name)
        self.finish()  # both wait for the device
        self.memory.free(address, kind)
        return (FakeStatus.cudaSuccess,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: Any) -> tuple[Any, ...]:
        kinds = self.cudaMemcpyKind
        to = Kind.PINNED if kind == kinds.cudaMemcpyDeviceToHost else Kind.DEVICE
        of = Kind.PINNED if kind == kinds.cudaMemcpyHostToDevice else Kind.DEVICE

        def check() -> None:
            self.memory.check(target, size, to, f"copy to {to.value}")
            self.memory.check(source, size, of, f"copy from {of.value}")

        def work() -> None:
            check()
            ctypes.memmove(target, source, size)

        check()
        self.calls["copy"] += 1
        self.stream(stream).put(work)
        return (FakeStatus.cudaSuccess,)

    def cudaMemsetAsync(self, target: int, value: int, size: int, stream: Any) -> tuple[Any, ...]:
        def work() -> None:
            self.memory.check(target, size, Kind.DEVICE, "memset")
            ctypes.memset(target, value, size)

        self.memory.check(target, size, Kind.DEVICE, "memset")
        self.stream(stream).put(work)
        return (FakeStatus.cudaSuccess,)

    # Streams and graphs

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        if flags != self.cudaStreamNonBlocking:
            raise Violation("a blocking stream would wait for the default stream")
        handle = 0x5000 + len(self.streams)
        self.streams[handle] = FakeStream(handle)
        return FakeStatus.cudaSuccess, self.streams[handle]

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any, ...]:
        self.finish()
        self.stream(stream).destroyed = True
        return (FakeStatus.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any, ...]:
        self._refuse_in_capture("cudaStreamSynchronize")
        if self.stream(stream).recording is not None:
            raise Violation("cudaStreamSynchronize of a stream that is captured")
        self.calls["synchronise"] += 1
        self.finish()
        return (FakeStatus.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: Any, mode: int) -> tuple[Any, ...]:
        found = self.stream(stream)
        if found.recording is not None:
            raise Violation("the stream is captured already")
        found.recording, found.recorder = [], threading.get_ident()
        return (FakeStatus.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, ...]:
        found = self.stream(stream)
        if found.recording is None:
            raise Violation("the stream is not captured")
        if found.recorder != threading.get_ident():
            raise Violation("another thread captures the stream")
        graph, found.recording, found.recorder = FakeGraph(found.recording), None, None
        return FakeStatus.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: FakeGraph, flags: int) -> tuple[Any, ...]:
        _check_alive(graph, "graph")
        self.calls["instantiate"] += 1
        return FakeStatus.cudaSuccess, FakeGraph(list(graph.work))

    def cudaGraphLaunch(self, executable: FakeGraph, stream: Any) -> tuple[Any, ...]:
        _check_alive(executable, "executable")
        found = self.stream(stream)
        self.calls["launch"] += 1
        for work in executable.work:
            found.put(work)
        return (FakeStatus.cudaSuccess,)

    def cudaGraphDestroy(self, graph: FakeGraph) -> tuple[Any, ...]:
        _check_alive(graph, "graph")
        graph.destroyed = True
        return (FakeStatus.cudaSuccess,)

    def cudaGraphExecDestroy(self, executable: FakeGraph) -> tuple[Any, ...]:
        return self.cudaGraphDestroy(executable)

    def _refuse_in_capture(self, name: str) -> None:
        if any(stream.recorder == threading.get_ident() for stream in self.streams.values()):
            raise Violation(f"{name} while a stream is captured")


def _check_alive(graph: FakeGraph, what: str) -> None:
    if graph.destroyed:
        raise Violation(f"the {what} is destroyed")
