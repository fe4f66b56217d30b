"""The decoder with its KV cache: prefill in chunks, then one token a step."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.append import AppendingSequence
from gar_edge.runtime.backend import Backend, Buffer, Run
from gar_edge.runtime.manifest import Manifest

PREFILL_CHUNK = 512  # positions per prefill run: bounds activations and scores whatever the prompt's length
CAPACITY_STEP = 64  # cache capacities are multiples of this


class TokenSequence(Protocol):
    """One sequence and its cache, however its decoder keeps it. `length`: positions held, `capacity`: at most."""

    length: int
    capacity: int

    def prefill(self, embeds: Buffer) -> NDArray[np.float32]:
        """Append at most `PREFILL_CHUNK` embeddings [S,C]; logits [V] of the last position."""
        ...

    def step(self, embed: NDArray[np.floating]) -> NDArray[np.float32]:
        """Append one token's embedding [C]; logits [V] of what follows it."""
        ...

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on."""
        ...


class DecoderRunner:
    """The decoder graph of one bundle."""

    def __init__(self, backend: Backend, manifest: Manifest) -> None:
        self.backend = backend
        self.dims = manifest.dimensions
        self.graph = manifest.graphs["decoder"]
        self.session = backend.session("decoder")
        ports = {port.name: np.dtype(port.dtype) for port in (*self.graph.inputs, *self.graph.outputs)}
        self.dtype = ports["inputs_embeds"]
        self.logits_dtype = ports["logits"]

    def start(self, length: int) -> TokenSequence:
        """An empty sequence with room for `length` positions."""
        capacity = -(-length // CAPACITY_STEP) * CAPACITY_STEP
        kind = AppendingSequence if self.graph.appends else InPlaceSequence
        return kind(self, min(capacity, max(self.dims.context, length)))


class InPlaceSequence:
    """A `TokenSequence` whose decoder updates its cache in place; every decode step reuses the same buffers."""

    def __init__(self, runner: DecoderRunner, capacity: int) -> None:
        self._runner = runner
        self.capacity = capacity
        self.length = 0  # positions in the cache
        dims, empty = runner.dims, runner.backend.empty
        shape = (1, dims.kv_heads, capacity, dims.head_dim)
        # Zeros, not garbage: an unwritten slot is masked, but 0 * NaN would still spread.
        self._caches = {name: runner.backend.zeros(shape, runner.dtype) for name in runner.graph.aliases.values()}
        self._logits = empty((1, dims.vocab), runner.logits_dtype)
        self._write_index = empty((1,), np.dtype(np.int64))
        self._step_embeds = empty((1, 1, dims.hidden), runner.dtype)
        self._visible = runner.backend.zeros((capacity,), np.dtype(np.bool_))  # slots that the next step may look at
        self._true = np.ones(1, np.bool_)
        self._step: Run | None = None

    def prefill(self, embeds: Buffer) -> NDArray[np.float32]:
        """Append at most `PREFILL_CHUNK` embeddings [S,C]; logits [V] of the last position."""
        count, hidden = embeds.shape
        slots = np.arange(self.capacity)
        queries = self.length + np.arange(count)
        mask = self._runner.backend.empty((1, 1, count, self.capacity), np.dtype(np.bool_))
        mask.write((slots <= queries[:, None])[None, None])
        self._write_index.write(np.asarray([self.length], np.int64))
        self._bind(embeds.reshape(1, count, hidden), mask)()
        self._visible.rows(self.length, self.length + count).write(np.ones(count, np.bool_))
        self.length += count
        return self._read_logits()

    def step(self, embed: NDArray[np.floating]) -> NDArray[np.float32]:
        """Append one token's embedding [C]; logits [V] of what follows it. Nothing is allocated but the logits."""
        self._step_embeds.write(embed[None, None])
        self._visible.rows(self.length, self.length + 1).write(self._true)
        self._write_index.write(np.asarray([self.length], np.int64))
        if self._step is None:
            self._step = self._bind(self._step_embeds, self._visible.reshape(1, 1, 1, self.capacity))
        self._step()
        self.length += 1
        return self._read_logits()

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on; their slots are hidden until they are written again."""
        self._visible.rows(length, self.length).write(np.zeros(self.length - length, np.bool_))
        self.length = length

    def _bind(self, embeds: Buffer, mask: Buffer) -> Run:
        inputs: dict[str, Buffer] = {
            "inputs_embeds": embeds,
            "write_index": self._write_index,
            "attention_mask": mask,
            **self._caches,
        }
        outputs = {out: self._caches[source] for out, source in self._runner.graph.aliases.items()}
        return self._runner.session.bind(inputs, {"logits": self._logits, **outputs})

    def _read_logits(self) -> NDArray[np.float32]:
        return self._logits.read()[0].astype(np.float32)
