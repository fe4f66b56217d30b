"""Tiles cut on the GPU: a picture is taken there once, and each tile written where the encoder reads it.

The kernel, `tile_cutter/cut_tile.cu`, comes as PTX, which the driver compiles: a robot needs no compiler for it.
"""

from __future__ import annotations

import ctypes
import warnings
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.cuda.api import Cuda
from gar_edge.runtime.engines.cuda.memory import DeviceBuffer, Stream, device_buffer
from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.images.preprocess import Window
from gar_edge.runtime.images.resize import Span, weights_of

FOLDER = Path(__file__).parent / "tile_cutter"
SOURCE, PTX = FOLDER / "cut_tile.cu", FOLDER / "cut_tile.ptx"
ACROSS, DOWN = "gar_cut_across", "gar_cut_down"  # the functions' names in the PTX
_BLOCK = (32, 8)  # threads of a block: columns, rows
_AXES = 64  # sizes of which weights are kept; frames of one camera share theirs
_CHANNELS = 3
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int

Argument = tuple[int, Any]  # a value and its C type


class Kernels:
    """The cutter's two functions, loaded into the device's context."""

    def __init__(self, cuda: Cuda) -> None:
        """`GarBackendError` where cuda-python has no driver API, or the driver refuses the PTX."""
        if cuda.driver is None:
            raise GarBackendError("cuda-python has no driver API here; install one of your CUDA's major version")
        self._cuda = cuda
        cuda.use()
        image = ctypes.create_string_buffer(PTX.read_bytes())  # adds the zero at the end
        module = self._cuda.drive("cuModuleLoadData", ctypes.addressof(image))  # lives as long as the process
        self._functions = {
            name: self._cuda.drive("cuModuleGetFunction", module, name.encode()) for name in (ACROSS, DOWN)
        }

    def launch(self, name: str, lines: int, columns: int, stream: Stream, *arguments: Argument) -> None:
        """Queue one, with a thread for each line and column."""
        values, kinds = zip(*arguments, strict=True)
        blocks = -(-lines // _BLOCK[1]), -(-columns // _BLOCK[0])
        self._cuda.use()
        self._cuda.drive(
            "cuLaunchKernel", self._functions[name], *blocks, 1, *_BLOCK, 1, 0, int(stream.handle), (values, kinds), 0
        )


@dataclass(frozen=True)
class Axis:
    """Weights of a whole axis: `low` [target] on the host and, as `first`, on the device; `weights` [taps,target]."""

    low: NDArray[np.int32]
    first: DeviceBuffer
    weights: DeviceBuffer

    @classmethod
    def of(cls, stream: Stream, source: int, target: int) -> Axis:
        found, weights = weights_of(Span(source, target, 0, target))
        low = found.astype(np.int32)
        buffers = [DeviceBuffer.new(stream, array.shape, array.dtype) for array in (low, weights)]
        for buffer, array in zip(buffers, (low, weights), strict=True):
            buffer.write(array)
        return cls(low, *buffers)

    def reads(self, span: Span) -> tuple[int, int]:
        """The first source sample that a span reads, and the one behind the last."""
        return int(self.low[span.begin]), min(int(self.low[span.end - 1]) + self.weights.shape[0], span.source)

    def arguments(self, span: Span) -> tuple[Argument, ...]:
        """As both kernels take them."""
        pointers = [(buffer.address, _POINTER) for buffer in (self.first, self.weights)]
        sizes = [(size, _INT) for size in (span.source, span.target, self.weights.shape[0], span.begin)]
        return (*pointers, *sizes)


class TileCutter:
    """The kernels on a back end's stream, in the way of `protocol.Cutter`."""

    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        """`GarBackendError` where the kernels cannot be had."""
        self._kernels = Kernels(cuda)
        self._stream = stream
        self._shared = cuda.shares_memory
        self._axis = lru_cache(_AXES)(partial(Axis.of, stream))

    def take(self, image: NDArray[np.uint8]) -> DeviceBuffer:
        """The picture in the GPU's memory; where that is the processor's too, in pinned memory, copied no further."""
        if self._shared:
            return self._stream.pinned(image)
        buffer = DeviceBuffer.new(self._stream, image.shape, image.dtype)
        buffer.write(image)
        return buffer

    def cut(self, picture: Buffer, window: Window, tile: Buffer) -> None:
        """Queue a tile of a picture, uint8 [3,rows,columns]."""
        source, out = device_buffer(picture), device_buffer(tile)
        across, down = window
        x, y = self._axis(across.source, across.target), self._axis(down.source, down.target)
        top, bottom = y.reads(down)
        width, height, rows = across.end - across.begin, down.end - down.begin, bottom - top
        stream = self._stream
        with stream.lock:
            if self._shared:
                stream.keep(source)
            wide = DeviceBuffer.new(stream, (_CHANNELS, rows, width), np.dtype(np.float32))
            self._kernels.launch(
                ACROSS, rows, width, stream, (source.address, _POINTER), *x.arguments(across),
                (width, _INT), (top, _INT), (rows, _INT), (wide.address, _POINTER),
            )  # fmt: skip
            self._kernels.launch(
                DOWN, _CHANNELS * height, width, stream, (wide.address, _POINTER), *y.arguments(down),
                (height, _INT), (top, _INT), (rows, _INT), (width, _INT), (out.address, _POINTER),
            )  # fmt: skip


def open_cutter(cuda: Cuda, stream: Stream) -> TileCutter | None:
    """The GPU's; None, with a warning, where it cannot be had: the processor cuts tiles too, but takes longer."""
    try:
        return TileCutter(cuda, stream)
    except GarBackendError as error:
        warnings.warn(f"tiles are cut on the processor: {error}", stacklevel=4)
        return None
