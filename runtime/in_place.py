"""A sequence whose decoder updates its cache in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.backend import Array, Buffer, Run
from gar_edge.runtime.sequence import TokenSequence

if TYPE_CHECKING:
    from gar_edge.runtime.decode import DecoderRunner


class InPlaceSequence(TokenSequence):
    """A cache [1,KV,capacity,d], allocated once, and the buffers that every decode step reuses."""

    def __init__(self, runner: DecoderRunner, capacity: int) -> None:
        super().__init__(runner, capacity)
        dims, empty, zeros = runner.dims, runner.backend.empty, runner.backend.zeros
        shape = (1, dims.kv_heads, capacity, dims.head_dim)
        # Zeros, not garbage: an unwritten slot is masked, but 0 * NaN would still spread.
        self._caches = {name: zeros(shape, runner.dtype) for name in runner.graph.aliases.values()}
        self._write_index = empty((1,), np.dtype(np.int64))
        self._step_embeds = empty((1, 1, dims.hidden), runner.dtype)
        self._visible = zeros((capacity,), np.dtype(np.bool_))  # slots that the next step may look at
        self._true = np.ones(1, np.bool_)
        self._step: Run | None = None

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on; their slots are hidden until they are written again."""
        self._visible.rows(length, self.length).write(np.zeros(self.length - length, np.bool_))
        self.length = length

    def restart(self) -> None:
        for cache in self._caches.values():
            cache.clear()
        self._visible.clear()
        self.length = 0

    def _append(self, embeds: Buffer) -> None:
        count, hidden = embeds.shape
        queries = self.length + np.arange(count)
        mask = (np.arange(self.capacity) <= queries[:, None])[None, None]
        self._bind(embeds.reshape(1, count, hidden), np.asarray([self.length], np.int64), mask)()
        self._visible.rows(self.length, self.length + count).write(np.ones(count, np.bool_))
        self.length += count

    def _append_one(self, embed: NDArray[np.floating]) -> None:
        self._step_embeds.write(embed[None, None])
        self._visible.rows(self.length, self.length + 1).write(self._true)
        self._write_index.write(np.asarray([self.length], np.int64))
        if self._step is None:
            mask = self._visible.reshape(1, 1, 1, self.capacity)
            self._step = self._bind(self._step_embeds, self._write_index, mask)
        self._step()
        self.length += 1

    def _bind(self, embeds: Buffer, write_index: Buffer | Array, mask: Buffer | Array) -> Run:
        inputs: dict[str, Buffer | Array] = {
            "inputs_embeds": embeds,
            "write_index": write_index,
            "attention_mask": mask,
            **self._caches,
        }
        outputs = {out: self._caches[source] for out, source in self._runner.graph.aliases.items()}
        return self._runner.session.bind(inputs, {"logits": self._logits, **outputs})
