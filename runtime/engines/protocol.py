"""The protocol behind which inference engines hide: named buffers in, named buffers out.

A buffer lives where the engine lives. Sessions are bound to buffers once and then run as often as needed, so that
a decode step allocates nothing and copies no cache. An engine may queue work and go on: writes, copies and runs happen
in the order in which they were asked for, and whoever reads a buffer waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.images.preprocess import Window

Array = NDArray[Any]


class Buffer(Protocol):
    """A dense row-major tensor in the engine's memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def rows(self, begin: int, end: int) -> Buffer:
        """A view of rows begin…end of the first axis; nothing is copied."""
        ...

    def reshape(self, *shape: int) -> Buffer:
        """A view of this memory under another shape."""
        ...

    def write(self, host: Array) -> None:
        """Copy a host array of the same shape into the buffer, as the buffer's dtype; the array may change at once."""
        ...

    def clear(self) -> None:
        """Fill with zeros."""
        ...

    def copy_from(self, other: Buffer) -> None:
        """Copy a buffer of the same engine, shape and dtype."""
        ...

    def read(self) -> Array:
        """The contents on the host; on a CPU engine a view, valid until the next run."""
        ...


class Run(Protocol):
    """A session bound to its buffers."""

    def __call__(self) -> None:
        """Run once; whoever reads the outputs' buffers afterwards finds the result."""
        ...


class Session(Protocol):
    """A loaded graph."""

    def bind(self, inputs: Mapping[str, Buffer | Array], outputs: Mapping[str, Buffer]) -> Run:
        """Bind every input and output by name; an output may share its input's buffer where the graph aliases them.

        An array among the inputs is on the host, and is taken to where the graph reads it. `GarBackendError` where
        the engine was not built for such shapes.
        """
        ...

    def limit(self, name: str, axis: int) -> int | None:
        """The largest size of an input's axis that the engine was built for; None where every size runs."""
        ...


class Cutter(Protocol):
    """Cuts tiles out of pictures in the engine's memory, by the weights of `images.resize`.

    Each sum adds its products in the order of the samples, and rounds after each: what the host's library does in
    another order may differ in a sum's last bit, and by one level where that decides the rounding.
    """

    def take(self, image: NDArray[np.uint8]) -> Buffer:
        """An RGB picture [H,W,3] where `cut` can read it; the array may change at once."""
        ...

    def cut(self, picture: Buffer, window: Window, tile: Buffer) -> None:
        """Write one tile of a picture, uint8 [3,rows,columns]."""
        ...


class Backend(Protocol):
    """One engine on one device, loading a bundle's graphs."""

    @property
    def name(self) -> str: ...

    @property
    def cutter(self) -> Cutter | None:
        """What cuts tiles; None where the host does."""
        ...

    @property
    def prefill_chunk(self) -> int:
        """Positions of a prompt that one run best takes: it bounds activations and scores whatever the length."""
        ...

    @property
    def features_at_once(self) -> int:
        """Features of tiles that one run of the encoder best makes; a tile is never divided."""
        ...

    def session(self, graph: str) -> Session:
        """Load one of the bundle's graphs by name; `GarBackendError` where the engine refuses it."""
        ...

    def free_memory(self) -> int:
        """Bytes that buffers can still take; 0 where nobody knows."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """A new buffer, contents undefined."""
        ...

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """A new buffer filled with zeros."""
        ...
