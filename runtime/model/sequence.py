"""One sequence of tokens and its KV cache, whichever way the decoder keeps it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.errors import GarBackendError

if TYPE_CHECKING:
    from gar_edge.runtime.model.decoder import DecoderRunner


class Prediction:
    """What follows N selected positions; in the engine's memory until it is read, and gone with the next run."""

    def __init__(self, runner: DecoderRunner, count: int) -> None:
        self.buffers = {
            "logits": runner.backend.empty((count, runner.dims.vocab), runner.logits_dtype),
            "tokens": runner.backend.empty((count,), np.dtype(np.int64)),
        }

    def tokens(self) -> NDArray[np.int64]:
        """The likeliest token after each position, [N]."""
        return self.buffers["tokens"].read().copy()

    def logits(self) -> NDArray[np.float32]:
        """[N,V]."""
        return self.buffers["logits"].read().astype(np.float32)


class TokenSequence(ABC):
    """`length`: positions in the cache; `capacity`: how many it can hold."""

    def __init__(self, runner: DecoderRunner, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._runner = runner
        self._predictions = {1: Prediction(runner, 1)}

    def prefill(self, embeds: Buffer, check: Callable[[], None] = lambda: None) -> Prediction:
        """Append embeddings [S,C], a chunk at a time; what follows the last position.

        `check` is called before each chunk, and may raise: what was appended until then stays.
        """
        for begin in range(0, embeds.shape[0], self._runner.chunk):
            check()
            chunk = embeds.rows(begin, min(begin + self._runner.chunk, embeds.shape[0]))
            self._check_room(chunk.shape[0])
            self._append(chunk, 1)
        return self._prediction(1)

    def step(self, embeds: NDArray[np.floating]) -> Prediction:
        """Append tokens' embeddings [S,C]; what follows each. A single token allocates nothing."""
        count = len(embeds)
        self._check_room(count)
        if count == 1:
            self._append_one(embeds[0])
        else:
            buffer = self._runner.backend.empty((count, self._runner.dims.hidden), self._runner.dtype)
            buffer.write(embeds)
            self._append(buffer, count)
        return self._prediction(count)

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
            self._predictions[count] = Prediction(self._runner, count)
        return self._predictions[count]

    def _check_room(self, count: int) -> None:
        """No engine checks where it is told to write, and beyond the cache lies other memory."""
        if self.length + count > self.capacity:
            raise GarBackendError(f"the cache holds {self.capacity} positions, {self.length + count} were asked of it")


def last(count: int, wanted: int) -> NDArray[np.int64]:
    """The decoder's `select` for the last `wanted` of `count` positions."""
    return np.arange(count - wanted, count)


def causal_mask(starts: list[int], count: int, capacity: int) -> NDArray[np.bool_]:
    """The mask [B,1,S,capacity] of `count` new positions from each sequence's start on: all slots up to their own."""
    queries = np.asarray(starts)[:, None] + np.arange(count)
    return (np.arange(capacity) <= queries[..., None])[:, None]
