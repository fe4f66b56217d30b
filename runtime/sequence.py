"""One sequence of tokens and its KV cache, whichever way the decoder keeps it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.backend import Buffer
from gar_edge.runtime.errors import GarBackendError

if TYPE_CHECKING:
    from gar_edge.runtime.decode import DecoderRunner


class TokenSequence(ABC):
    """`length`: positions in the cache; `capacity`: how many it can hold."""

    def __init__(self, runner: DecoderRunner, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._runner = runner
        self._logits = runner.backend.empty((1, runner.dims.vocab), runner.logits_dtype)

    def prefill(self, embeds: Buffer, check: Callable[[], None] = lambda: None) -> NDArray[np.float32]:
        """Append embeddings [S,C], a chunk at a time; logits [V] of the last position.

        `check` is called before each chunk, and may raise: what was appended until then stays.
        """
        for begin in range(0, embeds.shape[0], self._runner.chunk):
            check()
            chunk = embeds.rows(begin, min(begin + self._runner.chunk, embeds.shape[0]))
            self._check_room(chunk.shape[0])
            self._append(chunk)
        return self._read_logits()

    def step(self, embed: NDArray[np.floating]) -> NDArray[np.float32]:
        """Append one token's embedding [C]; logits [V] of what follows it. Nothing is allocated but the logits."""
        self._check_room(1)
        self._append_one(embed)
        return self._read_logits()

    @abstractmethod
    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on."""

    @abstractmethod
    def restart(self) -> None:
        """Forget everything: as good as new, with the memory and the bindings it has."""

    @abstractmethod
    def _append(self, embeds: Buffer) -> None:
        """Run the decoder over one chunk of embeddings [S,C]."""

    @abstractmethod
    def _append_one(self, embed: NDArray[np.floating]) -> None:
        """Run the decoder over one embedding [C]."""

    def _check_room(self, count: int) -> None:
        """No engine checks where it is told to write, and beyond the cache lies other memory."""
        if self.length + count > self.capacity:
            raise GarBackendError(f"the cache holds {self.capacity} positions, {self.length + count} were asked of it")

    def _read_logits(self) -> NDArray[np.float32]:
        return self._logits.read()[0].astype(np.float32)
