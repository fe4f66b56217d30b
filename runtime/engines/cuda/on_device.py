"""What the back ends of a GPU share."""

from __future__ import annotations

from typing import Any

import numpy as np

from gar_edge.runtime.engines.cuda.api import Cuda
from gar_edge.runtime.engines.cuda.cutter import open_cutter
from gar_edge.runtime.engines.cuda.memory import DeviceBuffer, Stream

FEATURES_AT_ONCE = 1024  # four tiles of the 1B
PREFILL_CHUNK = 512  # positions that keep a GPU busy for as long as it reads the weights


class OnDevice:
    """What the back ends of a GPU share: one stream, buffers in the memory behind it, and what cuts tiles there."""

    prefill_chunk = PREFILL_CHUNK
    features_at_once = FEATURES_AT_ONCE

    def __init__(self, cuda: Cuda, remedy: str) -> None:
        """remedy: as in `Stream`."""
        self._cuda = cuda
        self._stream = Stream(cuda, remedy)
        self.cutter = open_cutter(cuda, self._stream)

    def free_memory(self) -> int:
        return self._cuda.free_memory()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceBuffer:
        return DeviceBuffer.new(self._stream, shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceBuffer:
        return DeviceBuffer.zeros(self._stream, shape, dtype)
