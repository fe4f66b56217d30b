"""One sequence of tokens and its KV cache, whichever way the decoder keeps it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.model.decoder import DecoderGraph


class Prediction:
    """What follows N selected positions; in the engine's memory until it is read, and gone with the next run."""

    def __init__(self, graph: DecoderGraph, count: int) -> None:
        self.buffers = {
            "logits": graph.backend.empty((count, graph.dims.vocab), graph.logits_dtype),
            "tokens": graph.backend.empty((count,), np.dtype(np.int64)),
        }

    def tokens(self) -> NDArray[np.int64]:
        """The likeliest token after each position, [N]."""
        return self.buffers["tokens"].read().copy()

    def logits(self) -> NDArray[np.float32]:
        """[N,V]."""
        return self.buffers["logits"].read().astype(np.float32)

    def row(self, number: int) -> NDArray[np.float32]:
        """Logits [V] behind one of the positions, without reading the others."""
        return self.buffers["logits"].rows(number, number + 1).read()[0].astype(np.float32)


class TokenSequence(ABC):
    """`length`: positions in the cache; `capacity`: how many it can hold; `fixed`: in memory of one size."""

    def __init__(self, graph: DecoderGraph, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.fixed = graph.fixed
        self._graph = graph
        self._predictions = {1: Prediction(graph, 1)}

    def extend(self, embeds: Buffer) -> Prediction:
        """Append a chunk of a prompt, embeddings [S,C], in one run; what follows its last position.

        S is `DecoderGraph.chunk` at most: an engine need not take more.
        """
        self._check_room(embeds.shape[0])
        self._append(embeds, 1)
        return self._prediction(1)

    def prefill(self, embeds: Buffer) -> Prediction:
        """Append a whole prompt, embeddings [S,C], chunk by chunk; what follows its last position."""
        for begin in range(0, embeds.shape[0], self._graph.chunk):
            self.extend(embeds.rows(begin, min(begin + self._graph.chunk, embeds.shape[0])))
        return self._prediction(1)

    def step(self, embeds: NDArray[np.floating]) -> Prediction:
        """Append tokens' embeddings [S,C]; what follows each. A single token allocates nothing."""
        count = len(embeds)
        self._check_room(count)
        if count == 1:
            self._append_one(embeds[0])
        else:
            buffer = self._graph.backend.empty((count, self._graph.dims.hidden), self._graph.dtype)
            buffer.write(embeds)
            self._append(buffer, count)
        return self._prediction(count)

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Memory that its caches take now."""

    @abstractmethod
    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on."""

    @abstractmethod
    def restart(self) -> None:
        """Forget everything: as good as new, with the memory and the bindings it has."""

    @abstractmethod
    def _append(self, embeds: Buffer, wanted: int) -> None:
        """Run the decoder over one chunk of embeddings [S,C], predicting behind the last `wanted`."""

    @abstractmethod
    def _append_one(self, embed: NDArray[np.floating]) -> None:
        """Run the decoder over one embedding [C]."""

    def _prediction(self, count: int) -> Prediction:
        """Where predictions behind so many positions go."""
        if count not in self._predictions:
            self._predictions[count] = Prediction(self._graph, count)
        return self._predictions[count]

    def _check_room(self, count: int) -> None:
        """No engine checks where it is told to write, and beyond the cache lies other memory."""
        if self.length + count > self.capacity:
            raise GarBackendError(f"the cache holds {self.capacity} positions, {self.length + count} were asked of it")


def last(count: int, wanted: int) -> NDArray[np.int64]:
    """The decoder's `select` for the last `wanted` of `count` positions."""
    return np.arange(count - wanted, count)


def causal_mask(start: int, count: int, capacity: int) -> NDArray[np.bool_]:
    """The mask [1,1,S,capacity] of `count` new positions from `start` on: each sees all slots up to its own.

    A view that takes no memory of its own, for whoever copies it to the engine.
    """
    line = np.arange(capacity + count - 1) < start + count  # a row is a view of it, each a slot further left
    return np.lib.stride_tricks.sliding_window_view(line, capacity)[None, None, ::-1]
