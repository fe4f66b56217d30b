"""A sequence whose decoder returns its cache longer than it was given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.protocol import Array, Buffer
from gar_edge.runtime.model.decoder import DecoderGraph
from gar_edge.runtime.model.sequence import TokenSequence, causal_mask, last


class AppendingSequence(TokenSequence):
    """A sequence between two sets of buffers: what one run wrote as present is the past of the next.

    A cache is [capacity, KV, d], positions first, so that past and present are views of its beginning: nothing is
    copied but by the graph itself, and to rewind is to take a shorter view.
    """

    def __init__(self, graph: DecoderGraph, capacity: int) -> None:
        super().__init__(graph, capacity)
        dims, empty = graph.dims, graph.backend.empty
        shape = (capacity, dims.kv_heads, dims.head_dim)
        self._past, self._present = (
            {name: empty(shape, graph.dtype) for name in graph.ports.appends.values()} for _ in range(2)
        )
        self._position = empty((1,), np.dtype(np.int64))
        self._step_embeds = empty((1, dims.hidden), graph.dtype)
        self._only = graph.backend.zeros((1,), np.dtype(np.int64))  # a step has one position to predict behind
        self._visible = empty((capacity,), np.dtype(np.bool_))  # a step sees all that its caches hold
        self._visible.write(np.ones(capacity, np.bool_))

    @property
    def bytes(self) -> int:
        return self._graph.cache_bytes(self.capacity)

    def rewind(self, length: int) -> None:
        self.length = length

    def restart(self) -> None:
        self.length = 0

    def _append(self, embeds: Buffer, wanted: int) -> None:
        count = embeds.shape[0]
        mask = np.ascontiguousarray(causal_mask(self.length, count, self.length + count))
        self._run(embeds, mask, last(count, wanted))

    def _append_one(self, embed: NDArray[np.floating]) -> None:
        total = self.length + 1
        self._step_embeds.write(embed[None])
        self._run(self._step_embeds, self._visible.rows(0, total).reshape(1, 1, 1, total), self._only)

    def _run(self, embeds: Buffer, mask: Buffer | Array, select: Buffer | Array) -> None:
        count, hidden = embeds.shape
        self._position.write(np.asarray([self.length], np.int64))
        inputs: dict[str, Buffer | Array] = {
            "inputs_embeds": embeds.reshape(1, count, hidden),
            "position": self._position,
            "attention_mask": mask,
            "select": select,
            **{name: _beginning(cache, self.length) for name, cache in self._past.items()},
        }
        present = {
            out: _beginning(self._present[source], self.length + count)
            for out, source in self._graph.ports.appends.items()
        }
        prediction = self._prediction(select.shape[0])
        self._graph.session.bind(inputs, {**prediction.buffers, **present})()
        self._past, self._present = self._present, self._past
        self.length += count


def _beginning(cache: Buffer, length: int) -> Buffer:
    """The first positions of a cache [capacity,KV,d] as [1,length,KV,d]."""
    return cache.rows(0, length).reshape(1, length, *cache.shape[1:])
