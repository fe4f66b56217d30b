"""Weights from recipes to ONNX external data, one tensor in memory at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType

import onnx_ir as ir
import torch
from torch import Tensor

from gar_edge.export.graphs import Precision, TracedGraph
from gar_edge.models.weights import WeightSource
from gar_edge.runtime.manifest import FileEntry

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


def stream_weights(
    traced: TracedGraph, source: WeightSource, precision: Precision, data: DataFile, shared: dict[str, Path]
) -> None:
    """Write every parameter of a graph to `data` and point the graph there.

    shared: parameters whose bytes already are the whole of another file of the bundle (the tied head's table).
    """
    for name, value in traced.model.graph.initializers.items():
        recipe = traced.recipes.get(name)
        if recipe is None:
            continue  # a constant of the graph itself, kept inside the ONNX file
        if name in shared:
            path, offset, length = shared[name], 0, shared[name].stat().st_size
        else:
            path = data.path
            offset, length = data.append(recipe.make(source, precision.torch))
        assert value.shape is not None
        value.const_value = ir.ExternalTensor(
            path.name, offset, length, precision.onnx, shape=value.shape, name=name, base_dir=path.parent
        )


def parameter_bytes(traced: TracedGraph, precision: Precision, shared: Collection[str] = ()) -> int:
    """What a graph's parameters take on disk, those of `shared` left out."""
    wanted = traced.recipes.keys() - set(shared)
    shapes = [value.shape for name, value in traced.model.graph.initializers.items() if name in wanted]
    return sum(math.prod(shape.numpy()) for shape in shapes if shape is not None) * precision.torch.itemsize
