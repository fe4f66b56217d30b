"""Weights from recipes to ONNX external data, one tensor in memory at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import onnx_ir as ir
import torch
from torch import Tensor

from gar_edge.export.graphs import OpenGraph
from gar_edge.models.weights import WeightSource
from gar_edge.runtime.bundle.manifest import FileEntry

ALIGNMENT = 4096  # a page, so that engines can map tensors in place
PIECE = 1 << 24  # bytes handed to the file at once

Advance = Callable[[int], None]


class DataFile:
    """A binary file being written: tensors appended at aligned offsets, hashed on the way."""

    def __init__(self, path: Path, advance: Advance) -> None:
        self.path = path
        self._advance = advance
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._size = 0

    def append(self, tensor: Tensor) -> tuple[int, int]:
        """Write a contiguous tensor; its offset and length in bytes."""
        self._write(bytes(-self._size % ALIGNMENT))
        offset = self._size
        raw = tensor.flatten().view(torch.uint8).numpy().data
        for begin in range(0, len(raw), PIECE):
            self._write(raw[begin : begin + PIECE])
            self._advance(min(PIECE, len(raw) - begin))
        return offset, len(raw)

    def _write(self, piece: bytes | memoryview) -> None:
        self._file.write(piece)
        self._digest.update(piece)
        self._size += len(piece)

    def entry(self) -> FileEntry:
        """Size and digest of what was written."""
        return FileEntry(self._size, self._digest.hexdigest())

    def __enter__(self) -> DataFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


@dataclass(frozen=True)
class Stored:
    """Where a parameter's bytes lie."""

    path: Path
    offset: int
    length: int


def stream_weights(
    graph: OpenGraph, source: WeightSource, dtype: torch.dtype, data: DataFile, shared: Mapping[str, Stored]
) -> dict[str, Stored]:
    """Write every parameter of a graph to `data`; float ones in `dtype`. Where all its parameters lie, by name.

    shared: parameters whose bytes are in the bundle already (the tied head's table).
    """
    stored: dict[str, Stored] = {}
    for name in _parameters(graph):
        if name in shared:
            stored[name] = shared[name]
        else:
            offset, length = data.append(graph.recipes[name].make(source, dtype))
            stored[name] = Stored(data.path, offset, length)
    return stored


def point_at(graph: OpenGraph, stored: Mapping[str, Stored]) -> None:
    """Let a graph's parameters be external data."""
    for name in _parameters(graph):
        value, place = graph.model.graph.initializers[name], stored[name]
        assert value.shape is not None
        assert value.dtype is not None
        value.const_value = ir.ExternalTensor(
            place.path.name, place.offset, place.length, value.dtype, shape=value.shape, name=name,
            base_dir=place.path.parent,
        )  # fmt: skip


def parameter_bytes(graph: OpenGraph, shared: Collection[str] = ()) -> int:
    """What a graph's parameters take on disk, those of `shared` left out."""
    values = [graph.model.graph.initializers[name] for name in _parameters(graph) if name not in shared]
    return sum(
        math.prod(value.shape.numpy()) * value.dtype.bitwidth // 8
        for value in values
        if value.shape is not None and value.dtype is not None
    )


def _parameters(graph: OpenGraph) -> list[str]:
    """Names of the initialisers that a recipe makes; the others are constants, kept inside the ONNX file."""
    return [name for name in graph.model.graph.initializers if name in graph.recipes]
