"""Several sequences that one decoder run serves, each at a position of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.limits import round_up
from gar_edge.runtime.engines.protocol import Array, Buffer, Run
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.model.decoder import DecoderGraph
from gar_edge.runtime.model.in_place import InPlaceSequence
from gar_edge.runtime.model.kv_caches import STEPS_AHEAD, KvCaches
from gar_edge.runtime.model.sequence import Prediction, last


class SequenceBatch:
    """Rows of at most `places` sequences, whose `lengths` it holds; the first rows are in use.

    Decoding reads every weight once for all of them, and the weights are most of what a step reads. A sequence is
    prefilled on its own, where attention covers no more slots than it has, and copied in when it begins to answer.
    """

    def __init__(self, graph: DecoderGraph, places: int) -> None:
        empty = graph.backend.empty
        self.lengths: list[int] = []
        self.places = places
        self._graph = graph
        self._caches = KvCaches(graph, 0)
        self._embeds = empty((places, 1, graph.dims.hidden), graph.dtype)
        self._write_index = empty((places,), np.dtype(np.int64))
        self._visible = graph.backend.zeros((places, 0), np.dtype(np.bool_))
        self._predictions: dict[int, Prediction] = {}
        self._steps: dict[int, Run] = {}  # by how many sequences there are

    def join(self, sequence: InPlaceSequence) -> None:
        """Take over a sequence's caches into the next row; the sequence itself is not needed any more."""
        row = len(self.lengths)
        if row == self.places:
            raise GarBackendError(f"the batch holds {self.places} sequences")
        rows = self._caches.rows
        if row == rows:  # doubled: growing copies what is there
            rows = min(self.places, max(2, 2 * row))
        self._reserve(rows, round_up(sequence.length + STEPS_AHEAD))
        self._caches.copy_row(row, sequence.caches, 0, sequence.length)
        self.lengths.append(sequence.length)
        self._row(row).write(_seen(sequence.length, self._caches.slots))

    def step(self, embeds: NDArray[np.floating]) -> Prediction:
        """Append one token's embedding to every sequence, [B,C]; what follows each. Nothing is allocated."""
        count, longest = len(self.lengths), max(self.lengths)
        if longest >= self._graph.longest:
            raise GarBackendError(f"model and engine hold {self._graph.longest} positions")
        if longest >= self._caches.slots:
            self._reserve(self._caches.rows, round_up(longest + STEPS_AHEAD))
        if count not in self._steps:
            self._predictions.setdefault(count, Prediction(self._graph, count))
            inputs: dict[str, Buffer | Array] = {
                "inputs_embeds": self._embeds.rows(0, count),
                "write_index": self._write_index.rows(0, count),
                "attention_mask": self._visible.rows(0, count).reshape(count, 1, 1, self._caches.slots),
                "select": last(1, 1),
            }
            self._steps[count] = self._caches.bind(inputs, self._predictions[count])
        self._embeds.rows(0, count).write(embeds[:, None])
        self._write_index.rows(0, count).write(np.asarray(self.lengths, np.int64))
        for row, length in enumerate(self.lengths):
            self._row(row).rows(length, length + 1).write(np.ones(1, np.bool_))
        self._steps[count]()
        self.lengths = [length + 1 for length in self.lengths]
        return self._predictions[count]

    def copy_to(self, sequence: InPlaceSequence, row: int, length: int) -> None:
        """Give a sequence the first `length` positions of a row."""
        sequence.take_over(self._caches, row, length)

    def leave(self, row: int) -> None:
        """End a sequence; the last one takes its row. Memory is given back with the last sequence."""
        end = len(self.lengths) - 1
        if row != end:
            self._caches.copy_row(row, self._caches, end, self.lengths[end])
            self._row(row).copy_from(self._row(end))
            self.lengths[row] = self.lengths[end]
        self.lengths.pop()
        if not self.lengths:
            self._caches = KvCaches(self._graph, 0)
            self._steps.clear()

    def _reserve(self, rows: int, slots: int) -> None:
        if self._caches.reserve(rows, min(slots, self._graph.longest)):
            slots = self._caches.slots
            self._visible = self._graph.backend.zeros((self.places, slots), np.dtype(np.bool_))
            for row, length in enumerate(self.lengths):
                self._row(row).write(_seen(length, slots))
            self._steps.clear()

    def _row(self, row: int) -> Buffer:
        """Which slots of a sequence may be looked at, [slots]."""
        return self._visible.rows(row, row + 1).reshape(self._caches.slots)


def _seen(length: int, slots: int) -> NDArray[np.bool_]:
    """Which slots [slots] a sequence of this length has written to."""
    return np.arange(slots) < length
