"""Sequences whose decoder updates its caches in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.limits import round_up
from gar_edge.runtime.engines.protocol import Array, Buffer, Run
from gar_edge.runtime.model.sequence import Prediction, TokenSequence, causal_mask, last

if TYPE_CHECKING:
    from gar_edge.runtime.model.decoder import DecoderRunner


STEPS_AHEAD = 64  # slots that decoding adds when it has used up what there is


class InPlaceCaches:
    """The caches [B,KV,slots,d] of B sequences.

    Attention covers all slots, those that nothing was written to as well. So there are as many as are needed, and more
    are made when they are, where the engine takes any number.
    """

    def __init__(self, runner: DecoderRunner, count: int) -> None:
        self.slots = 0
        self._runner = runner
        self._count = count
        self._buffers: dict[str, Buffer] = {}
        self.reserve(runner.built_capacity or 0)

    def reserve(self, slots: int) -> bool:
        """Make room for so many positions; what is there stays. True where there is new memory, to be bound anew."""
        if slots <= self.slots:
            return False
        runner, held = self._runner, self.slots
        dims, rows = runner.dims, self._count * runner.dims.kv_heads
        for name in runner.graph.aliases.values():
            # Zeros, not garbage: an unwritten slot is masked, but 0 * NaN would still spread.
            grown = runner.backend.zeros((self._count, dims.kv_heads, slots, dims.head_dim), runner.dtype)
            if held:
                source = self._buffers[name].reshape(rows, held * dims.head_dim)
                target = grown.reshape(rows, slots * dims.head_dim)
                for row in range(rows):
                    _line(target, row).rows(0, held * dims.head_dim).copy_from(_line(source, row))
            self._buffers[name] = grown
        self.slots = slots
        return True

    def forget(self) -> None:
        """Begin anew: without slots, or with clean ones where the engine wants them all."""
        if self._runner.built_capacity is None:
            self._buffers, self.slots = {}, 0
        for buffer in self._buffers.values():
            buffer.clear()

    def copy_row(self, source: int, target: int) -> None:
        """Give one sequence's cache to another's place."""
        for buffer in self._buffers.values():
            buffer.rows(target, target + 1).copy_from(buffer.rows(source, source + 1))

    def bind(self, begin: int, inputs: dict[str, Buffer | Array], prediction: Prediction) -> Run:
        """The decoder on sequences from `begin` on, as many as `inputs` have: all that it takes but the caches."""
        end = begin + inputs["inputs_embeds"].shape[0]
        rows = {name: buffer.rows(begin, end) for name, buffer in self._buffers.items()}
        outputs = {out: rows[source] for out, source in self._runner.graph.aliases.items()}
        return self._runner.session.bind({**inputs, **rows}, {**prediction.buffers, **outputs})


class InPlaceSequence(TokenSequence):
    """A sequence with the buffers that every decode step reuses."""

    def __init__(self, runner: DecoderRunner, capacity: int) -> None:
        super().__init__(runner, capacity)
        empty = runner.backend.empty
        self._caches = InPlaceCaches(runner, 1)
        self._write_index = empty((1,), np.dtype(np.int64))
        self._step_embeds = empty((1, 1, runner.dims.hidden), runner.dtype)
        self._visible = runner.backend.zeros((capacity,), np.dtype(np.bool_))  # slots that the next step may look at
        self._true = np.ones(1, np.bool_)
        self._step: Run | None = None

    def rewind(self, length: int) -> None:
        """Forget all positions from `length` on; their slots are hidden until they are written again."""
        self._visible.rows(length, self.length).write(np.zeros(self.length - length, np.bool_))
        self.length = length

    def restart(self) -> None:
        self._caches.forget()
        self._visible.clear()
        self.length = 0
        if not self._caches.slots:
            self._step = None

    def _reserve(self, slots: int) -> None:
        if self._caches.reserve(min(slots, self.capacity)):
            self._step = None

    def _append(self, embeds: Buffer, wanted: int) -> None:
        count, hidden = embeds.shape
        self._reserve(round_up(self.length + count))
        inputs: dict[str, Buffer | Array] = {
            "inputs_embeds": embeds.reshape(1, count, hidden),
            "write_index": np.asarray([self.length], np.int64),
            "attention_mask": causal_mask([self.length], count, self._caches.slots),
            "select": last(count, wanted),
        }
        self._caches.bind(0, inputs, self._prediction(wanted))()
        self._visible.rows(self.length, self.length + count).write(np.ones(count, np.bool_))
        self.length += count

    def _append_one(self, embed: NDArray[np.floating]) -> None:
        if self.length == self._caches.slots:
            self._reserve(round_up(self.length + STEPS_AHEAD))
        self._step_embeds.write(embed[None, None])
        self._visible.rows(self.length, self.length + 1).write(self._true)
        self._write_index.write(np.asarray([self.length], np.int64))
        if self._step is None:
            inputs: dict[str, Buffer | Array] = {
                "inputs_embeds": self._step_embeds,
                "write_index": self._write_index,
                "attention_mask": self._visible.rows(0, self._caches.slots).reshape(1, 1, 1, self._caches.slots),
                "select": last(1, 1),
            }
            self._step = self._caches.bind(0, inputs, self._prediction(1))
        self._step()
        self.length += 1


def _line(buffer: Buffer, row: int) -> Buffer:
    """One row of [rows, N] as [N]."""
    return buffer.rows(row, row + 1).reshape(buffer.shape[1])
