"""Device memory as everything here takes it, TensorRT too: small blocks plainly, large ones in pieces."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gar_edge.runtime.engines.cuda.api import Cuda, CudaError
from gar_edge.runtime.engines.cuda.virtual_memory import PIECE, VirtualMemory

OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation and CUDA_ERROR_OUT_OF_MEMORY


class DeviceMemory:
    """Allocations of any size, in any thread. refused: bytes of the last one that was refused, 0 where none was."""

    def __init__(self, cuda: Cuda, wait: Callable[[], None]) -> None:
        """wait: returns when nobody works any more with what is about to be freed."""
        self.cuda = cuda
        self.refused = 0
        self._wait = wait
        self._lock = threading.Lock()
        self._virtual = VirtualMemory.of(cuda)

    def allocate(self, size: int) -> int:
        """The address of `size` bytes, aligned as CUDA aligns; `CudaError` where they are refused."""
        with self._lock:
            try:
                return self._allocate(size)
            except CudaError:
                self.refused = size
                raise

    def free(self, address: int) -> None:
        """Give an allocation back. CUDA waits by itself before it frees what was allocated plainly."""
        with self._lock:
            if self._virtual is not None and address in self._virtual:
                self._wait()
                self._virtual.free(address)
                return
        self.cuda.call("cudaFree", address)

    def _allocate(self, size: int) -> int:
        if size > PIECE and self._virtual is not None:
            self.cuda.use()  # the driver's calls need the context that the runtime makes
            try:
                return self._virtual.allocate(size)
            except CudaError as error:
                if error.status == OUT_OF_MEMORY:
                    raise
        return int(self.cuda.call("cudaMalloc", size))


def advice(cuda: Cuda, size: int) -> str:
    """What to do about NvMap, where it must be what refused `size` bytes; else nothing.

    A Jetson's GPU shares its CPU's memory. Where that has as much and more, CUDA still says "out of memory" and NvMap,
    below it, writes "NvMapMemAllocInternalTagged: … error 12" to the terminal.
    """
    if not cuda.shares_memory or (free := cuda.free_memory()) < size:
        return ""
    return (
        f"; {free / 2**20:.0f} MiB are free, so this is NvMap's error 12: stop other programs on the GPU or restart "
        "the board, whose memory is in pieces until then, and export with --split-head"
    )
