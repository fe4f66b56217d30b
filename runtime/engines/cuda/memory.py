"""Device memory in the order of one stream: a pool of blocks, pinned staging, and buffers over both."""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from gar_edge.runtime.engines.cuda.api import Cuda, CudaError
from gar_edge.runtime.engines.cuda.device_memory import OUT_OF_MEMORY, DeviceMemory, advice
from gar_edge.runtime.engines.protocol import Array, Buffer
from gar_edge.runtime.errors import GarBackendError

ALIGNMENT = 256  # bytes; what TensorRT asks of every tensor's address, and what CUDA gives
STAGING = 64 << 20  # most bytes of uploads that may wait for the GPU


class Block:
    """Memory of a pool, which outlives it; goes back when nobody refers to the block any more."""

    def __init__(self, pool: Pool, address: int, size: int) -> None:
        self._pool = pool
        self.address = address
        self.size = size


class Pool:
    """Blocks of one kind of memory, used again and never more than twice as large as asked for.

    A block may go back, and out again, while the GPU still works with it: whatever its next owner does is queued
    behind that, for there is one stream.
    """

    def __init__(
        self,
        allocate: Callable[[int], int],
        free: Callable[[int], None],
        remedy: Callable[[int], str],
        lock: threading.RLock,
    ) -> None:
        """remedy: what a user can do where so many bytes are refused. lock: the stream's."""
        self._allocate = allocate
        self._free = free
        self._remedy = remedy
        self._spare: list[tuple[int, int]] = []  # size, address; sorted
        self._returned: deque[tuple[int, int]] = deque()  # by the garbage collector, at any moment and in any thread
        self._lock = lock
        weakref.finalize(self, _free_all, free, self._spare, self._returned).atexit = False

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes; `GarBackendError` where no memory is left."""
        size = max(1, -(-size // ALIGNMENT)) * ALIGNMENT
        with self._lock:
            while self._returned:
                insort(self._spare, self._returned.popleft())
            at = bisect_left(self._spare, (size, 0))
            if at < len(self._spare) and self._spare[at][0] <= 2 * size:
                size, address = self._spare.pop(at)
            else:
                address = self._new(size)
        block = Block(self, address, size)
        weakref.finalize(block, self._returned.append, (size, address)).atexit = False
        return block

    def _new(self, size: int) -> int:
        try:
            return self._allocate(size)
        except CudaError as error:
            if error.status != OUT_OF_MEMORY:
                raise
            _free_all(self._free, self._spare, self._returned)
        try:
            return self._allocate(size)
        except CudaError:
            mebibytes = f"{size / 2**20:.0f} MiB"
            raise GarBackendError(f"out of GPU memory for a buffer of {mebibytes}; {self._remedy(size)}") from None


def _free_all(free: Callable[[int], None], spare: list[tuple[int, int]], returned: deque[tuple[int, int]]) -> None:
    while returned:
        spare.append(returned.popleft())
    while spare:
        free(spare.pop()[1])


class Queue:
    """A CUDA stream's handle, which outlives all that must wait for the stream."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.handle = cuda.call("cudaStreamCreateWithFlags", cuda.api.cudaStreamNonBlocking)
        weakref.finalize(self, cuda.call, "cudaStreamDestroy", self.handle).atexit = False

    def wait(self) -> None:
        """Until everything queued is done."""
        self._cuda.call("cudaStreamSynchronize", self.handle)


class Stream:
    """The one CUDA stream of a back end: uploads, runs and downloads happen in the order in which they are queued.

    `lock` belongs to whoever queues several things that must not be mixed with another thread's. memory: what its
    buffers are allocated from.
    """

    def __init__(self, cuda: Cuda, remedy: str) -> None:
        """remedy: what a user can do where memory runs out."""
        self._cuda = cuda
        self.remedy = remedy
        self._queue = Queue(cuda)
        self.handle = self._queue.handle
        self.lock = threading.RLock()
        self.memory = DeviceMemory(cuda, self._queue.wait)

        def told(size: int) -> str:
            return remedy + advice(cuda, size)

        self.device = Pool(self.memory.allocate, self.memory.free, told, self.lock)
        self._pinned = Pool(
            lambda size: int(cuda.call("cudaMallocHost", size)),
            lambda at: cuda.call("cudaFreeHost", at),
            told,
            self.lock,
        )
        self._in_flight: list[Block] = []  # pinned blocks that queued uploads read from
        self._held: list[Block] = []  # and those that queued kernels do

    def upload(self, address: int, host: Array) -> None:
        """Queue a copy to the device; the array may change at once."""
        if not host.nbytes:
            return
        with self.lock:
            if sum(block.size for block in self._in_flight) + host.nbytes > STAGING:
                self.synchronise()
            block = self._pinned.take(host.nbytes)
            _view(block, host.shape, host.dtype)[...] = host
            self._copy(address, block.address, host.nbytes, "cudaMemcpyHostToDevice")
            self._in_flight.append(block)

    def pinned(self, host: Array) -> DeviceBuffer:
        """A copy of an array in pinned memory of the host, which kernels read by the same address (CUDA's UVA)."""
        block = self._pinned.take(host.nbytes)
        _view(block, host.shape, host.dtype)[...] = host
        return DeviceBuffer(self, block, host.shape, host.dtype)

    def keep(self, buffer: DeviceBuffer) -> None:
        """Keep pinned memory from its next owner, who writes without the stream, until what is queued now is done."""
        with self.lock:
            self._held.append(buffer._block)

    def download(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Wait for all that is queued, and for a copy from the device."""
        with self.lock:
            size = math.prod(shape) * dtype.itemsize
            block = self._pinned.take(size)
            self._copy(block.address, address, size, "cudaMemcpyDeviceToHost")
            self.synchronise()
            return _view(block, shape, dtype).copy()

    def copy(self, address: int, source: int, size: int) -> None:
        """Queue a copy on the device."""
        with self.lock:
            self._copy(address, source, size, "cudaMemcpyDeviceToDevice")

    def clear(self, address: int, size: int) -> None:
        """Queue zeros."""
        with self.lock:
            self._cuda.call("cudaMemsetAsync", address, 0, size, self.handle)

    def synchronise(self) -> None:
        """Wait until everything queued is done."""
        with self.lock:
            self._queue.wait()
            self._in_flight.clear()
            self._held.clear()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` queues as a CUDA graph, without doing it; what comes back queues all of it at once."""
        cuda, mode = self._cuda, self._cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with self.lock:
            cuda.call("cudaStreamBeginCapture", self.handle, mode)
            try:
                work()
            except BaseException:
                with suppress(CudaError):
                    cuda.call("cudaGraphDestroy", cuda.call("cudaStreamEndCapture", self.handle))
                raise
            graph = cuda.call("cudaStreamEndCapture", self.handle)
            try:
                executable = cuda.call("cudaGraphInstantiate", graph, 0)
            finally:
                cuda.call("cudaGraphDestroy", graph)

        def launch() -> None:
            cuda.call("cudaGraphLaunch", executable, self.handle)

        weakref.finalize(launch, cuda.call, "cudaGraphExecDestroy", executable).atexit = False
        return launch

    def _copy(self, address: int, source: int, size: int, kind: str) -> None:
        kinds = self._cuda.api.cudaMemcpyKind
        self._cuda.call("cudaMemcpyAsync", address, source, size, getattr(kinds, kind), self.handle)


class Scratch:
    """Memory that engines work in, as large as the largest needs: on one stream they run one after another.

    A block stays valid while somebody holds it, so a captured graph may go on using the one it was captured with.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._size = 0
        self._block: Block | None = None

    def reserve(self, size: int) -> None:
        """There is an engine that needs so many bytes."""
        self._size = max(self._size, size)

    def take(self) -> Block:
        """The block, made when first needed; `GarBackendError` where no memory is left."""
        if self._block is None or self._block.size < self._size:
            self._block = self._stream.device.take(self._size)
        return self._block


class DeviceBuffer:
    """A dense row-major tensor in a block of memory that the device reads."""

    def __init__(
        self, stream: Stream, block: Block, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int = 0
    ) -> None:
        self._stream = stream
        self._block = block
        self._offset = offset
        self.shape = shape
        self.dtype = dtype

    @classmethod
    def new(cls, stream: Stream, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceBuffer:
        """Contents are undefined."""
        return cls(stream, stream.device.take(math.prod(shape) * dtype.itemsize), shape, dtype)

    @classmethod
    def zeros(cls, stream: Stream, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceBuffer:
        buffer = cls.new(stream, shape, dtype)
        buffer.clear()
        return buffer

    @property
    def address(self) -> int:
        return self._block.address + self._offset

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, begin: int, end: int) -> DeviceBuffer:
        if not 0 <= begin <= end <= self.shape[0]:
            raise IndexError(f"rows {begin} to {end} of {self.shape[0]}")
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        shape = (end - begin, *self.shape[1:])
        return DeviceBuffer(self._stream, self._block, shape, self.dtype, self._offset + begin * row)

    def reshape(self, *shape: int) -> DeviceBuffer:
        if -1 in shape:
            known = -math.prod(shape)
            shape = tuple(math.prod(self.shape) // known if size == -1 else size for size in shape)
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{self.shape} cannot be seen as {shape}")
        return DeviceBuffer(self._stream, self._block, shape, self.dtype, self._offset)

    def write(self, host: Array) -> None:
        if host.shape != self.shape:
            raise ValueError(f"an array of shape {host.shape} for a buffer of shape {self.shape}")
        self._stream.upload(self.address, host.astype(self.dtype, copy=False))

    def clear(self) -> None:
        self._stream.clear(self.address, self.size)

    def copy_from(self, other: Buffer) -> None:
        source = device_buffer(other)
        if (source.shape, source.dtype) != (self.shape, self.dtype):
            raise ValueError(f"{source.dtype} {source.shape} for a buffer of {self.dtype} {self.shape}")
        self._stream.copy(self.address, source.address, self.size)

    def read(self) -> Array:
        return self._stream.download(self.address, self.shape, self.dtype)


def device_buffer(buffer: Buffer) -> DeviceBuffer:
    """A buffer of a back end on the GPU; TypeError for another's."""
    if not isinstance(buffer, DeviceBuffer):
        raise TypeError(f"{type(buffer).__name__} is not a buffer on the GPU")
    return buffer


def _view(block: Block, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Pinned memory as an array; valid while the block is."""
    size = math.prod(shape) * dtype.itemsize
    memory = memoryview((ctypes.c_uint8 * size).from_address(block.address))
    return np.frombuffer(memory, dtype).reshape(shape)
