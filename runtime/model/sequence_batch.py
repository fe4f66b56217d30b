"""Several sequences that one decoder run serves, each at a position of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.limits import round_up
from gar_edge.runtime.engines.protocol import Array, Buffer, Run
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.model.in_place import STEPS_AHEAD, InPlaceCaches
from gar_edge.runtime.model.sequence import Prediction, causal_mask, last

if TYPE_CHECKING:
    from gar_edge.runtime.model.decoder import DecoderRunner


class SequenceBatch:
    """Caches for `places` sequences of at most `capacity` positions; the first are in use, and have `lengths`.

    Decoding reads every weight once for all of them, and the weights are most of what a step reads.
    """

    def __init__(self, runner: DecoderRunner, places: int, capacity: int) -> None:
        empty = runner.backend.empty
        self.lengths: list[int] = []
        self.places, self.capacity = places, capacity
        self._runner = runner
        self._caches = InPlaceCaches(runner, places)
        self._embeds = empty((places, 1, runner.dims.hidden), runner.dtype)
        self._write_index = empty((places,), np.dtype(np.int64))
        self._visible = runner.backend.zeros((places, self._caches.slots), np.dtype(np.bool_))
        self._predictions: dict[int, Prediction] = {}
        self._steps: dict[int, Run] = {}  # by how many sequences there are

    def join(self, prompts: Sequence[Buffer], check: Callable[[], None] = lambda: None) -> Prediction:
        """Prefill new sequences with embeddings [S,C] each, together; what follows the last position of each.

        Runs take equally many positions of every prompt. Where one is shorter, its last positions are computed again,
        which gives what is there already. `check` is called before each run, and may raise: nobody has joined then.
        """
        count, begin = len(prompts), len(self.lengths)
        lengths = [prompt.shape[0] for prompt in prompts]
        if begin + count > self.places or max(lengths) > self.capacity:
            raise GarBackendError(
                f"{self.places} sequences of {self.capacity} positions were planned; {count} of up to {max(lengths)} "
                f"came to {begin}"
            )
        chunk = min(max(self._runner.chunk // count, 1), *lengths)
        hidden = self._runner.dims.hidden
        embeds = self._runner.backend.empty((count, chunk, hidden), self._runner.dtype)
        prediction = Prediction(self._runner, count)
        for window in range(-(-max(lengths) // chunk)):
            check()
            starts = [min(window * chunk, length - chunk) for length in lengths]
            self._reserve(round_up(max(starts) + chunk))
            for row, (prompt, start) in enumerate(zip(prompts, starts, strict=True)):
                embeds.rows(row, row + 1).reshape(chunk, hidden).copy_from(prompt.rows(start, start + chunk))
            inputs: dict[str, Buffer | Array] = {
                "inputs_embeds": embeds,
                "write_index": np.asarray(starts, np.int64),
                "attention_mask": causal_mask(starts, chunk, self._caches.slots),
                "select": last(chunk, 1),
            }
            self._caches.bind(begin, inputs, prediction)()
        self.lengths += lengths
        self._visible.rows(begin, begin + count).write(_seen(lengths, self._caches.slots))
        return prediction

    def step(self, embeds: NDArray[np.floating]) -> Prediction:
        """Append one token's embedding to every sequence, [B,C]; what follows each. Nothing is allocated."""
        count = len(self.lengths)
        if max(self.lengths) >= self.capacity:
            raise GarBackendError(f"the caches hold {self.capacity} positions")
        if max(self.lengths) >= self._caches.slots:
            self._reserve(round_up(max(self.lengths) + STEPS_AHEAD))
        if count not in self._steps:
            self._predictions[count] = Prediction(self._runner, count)
            inputs: dict[str, Buffer | Array] = {
                "inputs_embeds": self._embeds.rows(0, count),
                "write_index": self._write_index.rows(0, count),
                "attention_mask": self._visible.rows(0, count).reshape(count, 1, 1, self._caches.slots),
                "select": last(1, 1),
            }
            self._steps[count] = self._caches.bind(0, inputs, self._predictions[count])
        self._embeds.rows(0, count).write(embeds[:, None])
        self._write_index.rows(0, count).write(np.asarray(self.lengths, np.int64))
        for row, length in enumerate(self.lengths):
            self._row(row).rows(length, length + 1).write(np.ones(1, np.bool_))
        self._steps[count]()
        self.lengths = [length + 1 for length in self.lengths]
        return self._predictions[count]

    def leave(self, row: int) -> None:
        """End a sequence; the last one takes its place."""
        end = len(self.lengths) - 1
        if row != end:
            self._caches.copy_row(end, row)
            self._row(row).copy_from(self._row(end))
            self.lengths[row] = self.lengths[end]
        self.lengths.pop()

    def _reserve(self, slots: int) -> None:
        if self._caches.reserve(min(slots, self.capacity)):
            slots = self._caches.slots
            self._visible = self._runner.backend.zeros((self.places, slots), np.dtype(np.bool_))
            if self.lengths:
                self._visible.rows(0, len(self.lengths)).write(_seen(self.lengths, slots))
            self._steps.clear()

    def _row(self, row: int) -> Buffer:
        """Which slots of a sequence may be looked at, [slots]."""
        return self._visible.rows(row, row + 1).reshape(self._caches.slots)


def _seen(lengths: list[int], slots: int) -> NDArray[np.bool_]:
    """Which slots [B,slots] sequences of these lengths have written to."""
    return np.arange(slots) < np.asarray(lengths)[:, None]
