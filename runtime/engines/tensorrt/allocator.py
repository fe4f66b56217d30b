"""TensorRT's weights and scratch out of our device memory."""

from __future__ import annotations

from typing import Any

from gar_edge.runtime.engines.cuda.api import CudaError
from gar_edge.runtime.engines.cuda.device_memory import DeviceMemory


def allocator(trt: Any, memory: DeviceMemory) -> Any:
    """An `IGpuAsyncAllocator` over `memory`, for a builder or a runtime, which keep it for as long as they need it.

    TensorRT calls it from C++, in any thread, and must never see a Python exception: it prints them. An address of 0
    says that there is no memory; of the None that is documented its Python module prints that it is no number.
    """

    class Allocator(trt.IGpuAsyncAllocator):  # type: ignore[misc]
        def __init__(self, memory: DeviceMemory) -> None:
            trt.IGpuAsyncAllocator.__init__(self)
            self._memory = memory

        def allocate_async(self, size: int, alignment: int, *flags_and_stream: int) -> int:
            # Alignment is never more than cudaMalloc's. TensorRT passes the stream before the flags, TensorRT-RTX, like
            # the documentation of both, behind them; neither is needed here.
            if size == 0:
                return 0
            try:
                return self._memory.allocate(size)
            except CudaError:
                return 0

        def reallocate(self, address: int, alignment: int, new_size: int) -> int:
            return 0  # not done; what is at the address stays

        def deallocate_async(self, memory: int, stream: int) -> bool:
            try:
                if memory:
                    self._memory.free(memory)
            except CudaError:
                return False
            return True

    return Allocator(memory)
