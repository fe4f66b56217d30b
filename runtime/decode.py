"""The decoder with its KV cache: prefill in chunks, then one token a step, in place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.backend import Array, Backend, Buffer, Run
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.manifest import Manifest

PREFILL_CHUNK = 512  # positions per prefill run: bounds activations and scores whatever the prompt's length
CAPACITY_STEP = 64  # cache capacities are multiples of this
_LENGTH_AXIS, _CAPACITY_AXIS = 1, 2  # of inputs_embeds [B,S,C], of a cache [B,KV,capacity,d]


class DecoderRunner:
    """The decoder graph of one bundle.

    longest: tokens of prompt and answer together, by the model's context and the engine's cache.
    """

    def __init__(self, backend: Backend, manifest: Manifest) -> None:
        self.backend = backend
        self.dims = manifest.dimensions
        self.graph = manifest.graphs["decoder"]
        self.session = backend.session("decoder")
        ports = {port.name: np.dtype(port.dtype) for port in (*self.graph.inputs, *self.graph.outputs)}
        self.dtype = ports["inputs_embeds"]
        self.logits_dtype = ports["logits"]
        self._built_capacity = self.session.limit(next(iter(self.graph.aliases.values())), _CAPACITY_AXIS)
        self.longest = min(self.dims.context, self._built_capacity or self.dims.context)
        self.chunk = min(PREFILL_CHUNK, self.session.limit("inputs_embeds", _LENGTH_AXIS) or PREFILL_CHUNK)

    def capacity_for(self, length: int) -> int:
        """Slots of the cache that a sequence of `length` positions gets; an engine may know only one size.

        `GarBackendError` where the engine's is too small.
        """
        if self._built_capacity is None:
            return min(-(-length // CAPACITY_STEP) * CAPACITY_STEP, max(self.dims.context, length))
        if length > self._built_capacity:
            raise GarBackendError(
                f"{length} tokens were asked for and the engine's cache holds {self._built_capacity}; "
                f"gar-engine build --capacity {length} makes a larger one"
            )
        return self._built_capacity

    def start(self, length: int) -> TokenSequence:
        """An empty sequence with room for `length` positions."""
        return TokenSequence(self, self.capacity_for(length))


class TokenSequence:
    """One sequence's cache, allocated once, and the buffers that every decode step reuses."""

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

    def prefill(self, embeds: Buffer, check: Callable[[], None] = lambda: None) -> NDArray[np.float32]:
        """Append embeddings [S,C], a chunk at a time; logits [V] of the last position.

        `check` is called before each chunk, and may raise: what was appended until then stays.
        """
        for begin in range(0, embeds.shape[0], self._runner.chunk):
            check()
            self._append(embeds.rows(begin, min(begin + self._runner.chunk, embeds.shape[0])))
        return self._read_logits()

    def step(self, embed: NDArray[np.floating]) -> NDArray[np.float32]:
        """Append one token's embedding [C]; logits [V] of what follows it. Nothing is allocated but the logits."""
        self._check_room(1)
        self._step_embeds.write(embed[None, None])
        self._visible.rows(self.length, self.length + 1).write(self._true)
        self._write_index.write(np.asarray([self.length], np.int64))
        if self._step is None:
            mask = self._visible.reshape(1, 1, 1, self.capacity)
            self._step = self._bind(self._step_embeds, self._write_index, mask)
        self._step()
        self.length += 1
        return self._read_logits()

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on; their slots are hidden until they are written again."""
        self._visible.rows(length, self.length).write(np.zeros(self.length - length, np.bool_))
        self.length = length

    def restart(self) -> None:
        """Forget everything: as good as new, with the memory and the bindings it has."""
        for cache in self._caches.values():
            cache.clear()
        self._visible.clear()
        self.length = 0

    def _append(self, embeds: Buffer) -> None:
        count, hidden = embeds.shape
        self._check_room(count)
        queries = self.length + np.arange(count)
        mask = (np.arange(self.capacity) <= queries[:, None])[None, None]
        self._bind(embeds.reshape(1, count, hidden), np.asarray([self.length], np.int64), mask)()
        self._visible.rows(self.length, self.length + count).write(np.ones(count, np.bool_))
        self.length += count

    def _check_room(self, count: int) -> None:
        """No engine checks where it is told to write, and beyond the cache lies other memory."""
        if self.length + count > self.capacity:
            raise GarBackendError(f"the cache holds {self.capacity} positions, {self.length + count} were asked of it")

    def _bind(self, embeds: Buffer, write_index: Buffer | Array, mask: Buffer | Array) -> Run:
        inputs: dict[str, Buffer | Array] = {
            "inputs_embeds": embeds,
            "write_index": write_index,
            "attention_mask": mask,
            **self._caches,
        }
        outputs = {out: self._caches[source] for out, source in self._runner.graph.aliases.items()}
        return self._runner.session.bind(inputs, {"logits": self._logits, **outputs})

    def _read_logits(self) -> NDArray[np.float32]:
        return self._logits.read()[0].astype(np.float32)
