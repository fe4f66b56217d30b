"""A sequence whose decoder updates its caches in place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.limits import round_up
from gar_edge.runtime.engines.protocol import Array, Buffer, Run
from gar_edge.runtime.model.decoder import DecoderGraph
from gar_edge.runtime.model.kv_caches import STEPS_AHEAD, KvCaches
from gar_edge.runtime.model.sequence import TokenSequence, causal_mask, last


class InPlaceSequence(TokenSequence):
    """A sequence with the buffers that every decode step reuses."""

    def __init__(self, graph: DecoderGraph, capacity: int) -> None:
        super().__init__(graph, capacity)
        empty = graph.backend.empty
        self.caches = KvCaches(graph)
        self._write_index = empty((1,), np.dtype(np.int64))
        self._step_embeds = empty((1, 1, graph.dims.hidden), graph.dtype)
        self._visible = graph.backend.zeros((capacity,), np.dtype(np.bool_))  # slots that the next step may look at
        self._true = np.ones(1, np.bool_)
        self._step: Run | None = None

    @property
    def bytes(self) -> int:
        return self.caches.bytes

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on; their slots are hidden until they are written again."""
        self._visible.rows(length, self.length).write(np.zeros(self.length - length, np.bool_))
        self.length = length

    def restart(self) -> None:
        self.caches.forget()
        self._visible.clear()
        self.length = 0
        if not self.caches.slots:
            self._step = None

    def take_over(self, caches: KvCaches, row: int, length: int) -> None:
        """Become the sequence of so many positions whose caches lie in a row of others."""
        self.restart()
        self._reserve(round_up(length))
        self.caches.copy_row(0, caches, row, length)
        self._visible.rows(0, length).write(np.ones(length, np.bool_))
        self.length = length

    def _reserve(self, slots: int) -> None:
        if self.caches.reserve(1, min(slots, self.capacity)):
            self._step = None

    def _append(self, embeds: Buffer, wanted: int) -> None:
        count, hidden = embeds.shape
        self._reserve(round_up(self.length + count))
        inputs: dict[str, Buffer | Array] = {
            "inputs_embeds": embeds.reshape(1, count, hidden),
            "write_index": np.asarray([self.length], np.int64),
            "attention_mask": causal_mask(self.length, count, self.caches.slots),
            "select": last(count, wanted),
        }
        self.caches.bind(inputs, self._prediction(wanted))()
        self._visible.rows(self.length, self.length + count).write(np.ones(count, np.bool_))
        self.length += count

    def _append_one(self, embed: NDArray[np.floating]) -> None:
        if self.length == self.caches.slots:
            self._reserve(round_up(self.length + STEPS_AHEAD))
        self._step_embeds.write(embed[None, None])
        self._visible.rows(self.length, self.length + 1).write(self._true)
        self._write_index.write(np.asarray([self.length], np.int64))
        if self._step is None:
            inputs: dict[str, Buffer | Array] = {
                "inputs_embeds": self._step_embeds,
                "write_index": self._write_index,
                "attention_mask": self._visible.rows(0, self.caches.slots).reshape(1, 1, 1, self.caches.slots),
                "select": last(1, 1),
            }
            self._step = self.caches.bind(inputs, self._prediction(1))
        self._step()
        self.length += 1
