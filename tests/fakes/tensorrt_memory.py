"""What the fake TensorRT allocates on the device, and by whom.

As TensorRT does, by the allocator that it was given, or plainly. A broken rule raises `Violation`:

- an allocator is an `IGpuAsyncAllocator`, made with its base's constructor, and never raises
- what it returns is live device memory, aligned and large enough; what it gets back it takes
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from fakes.cuda import ALIGNMENT, Kind, Violation

if TYPE_CHECKING:
    from fakes.tensorrt import FakeTensorRt


class IGpuAsyncAllocator:
    def __init__(self) -> None:
        self.is_made = True


class FakeMemory:
    """An allocation that goes back when nobody refers to it any more. address 0: it was refused."""

    def __init__(self, module: FakeTensorRt, allocator: Any, size: int) -> None:
        self.size = size
        if allocator is None:
            status, address = module.cuda.cudaMalloc(size)
            self.address = 0 if status else int(address)
        else:
            if not isinstance(allocator, IGpuAsyncAllocator) or not allocator.is_made:
                raise Violation("an allocator without its base")
            # The Python modules differ in the order of these two.
            flags, stream = 0, 0
            last = (flags, stream) if module.is_rtx else (stream, flags)
            self.address = allocator.allocate_async(size, ALIGNMENT, *last)
        if self.address:
            module.cuda.memory.check(self.address, size, Kind.DEVICE, "what an allocator returned")
            if self.address % ALIGNMENT:
                raise Violation("an allocator's address is not aligned")
            weakref.finalize(self, _give_back, module, allocator, self.address).atexit = False


def _give_back(module: FakeTensorRt, allocator: Any, address: int) -> None:
    if allocator is None:
        module.cuda.cudaFree(address)
    elif allocator.deallocate_async(address, 0) is not True:
        raise Violation("an allocator did not take its memory back")


def weight_bytes(model: onnx.ModelProto, source: str) -> int:
    """Bytes of a graph's parameters, those beside the file and those in it."""
    size = len(model.SerializeToString())
    for tensor in model.graph.initializer:
        stored = {entry.key: entry.value for entry in tensor.external_data}
        if stored:
            place = Path(source).parent / stored["location"]
            size += int(stored.get("length", place.stat().st_size))
    return size
