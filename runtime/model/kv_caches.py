"""KV caches of several sequences in one piece of memory for each layer, which the decoder updates in place."""

from __future__ import annotations

from gar_edge.runtime.engines.protocol import Array, Buffer, Run
from gar_edge.runtime.model.decoder import DecoderGraph
from gar_edge.runtime.model.sequence import Prediction

STEPS_AHEAD = 64  # slots that decoding adds when it has used up what there is


class KvCaches:
    """The caches [B,KV,slots,d]: one row for each of B sequences, one slot for each position.

    Attention covers all slots, those that nothing was written to as well. So there are as many as are needed, and more
    are made when they are, where the engine takes any number.
    """

    def __init__(self, graph: DecoderGraph, rows: int = 1) -> None:
        self.rows = self.slots = 0
        self._graph = graph
        self._buffers: dict[str, Buffer] = {}
        self.reserve(rows, graph.built_capacity or 0)

    def reserve(self, rows: int, slots: int) -> bool:
        """Make room for so many sequences and positions; what is there stays.

        True where there is new memory, to be bound anew.
        """
        rows, slots = max(rows, self.rows), max(slots, self.slots)
        if (rows, slots) == (self.rows, self.slots):
            return False
        dims = self._graph.dims
        if rows and slots:
            for name in self._graph.ports.aliases.values():
                # Zeros, not garbage: an unwritten slot is masked, but 0 * NaN would still spread.
                grown = self._graph.backend.zeros((rows, dims.kv_heads, slots, dims.head_dim), self._graph.dtype)
                if name in self._buffers:
                    _copy_slots(self._buffers[name], grown, self.slots)
                self._buffers[name] = grown
        self.rows, self.slots = rows, slots
        return True

    def forget(self) -> None:
        """Begin anew: without slots, or with clean ones where the engine wants them all."""
        if self._graph.built_capacity is None:
            self._buffers, self.slots = {}, 0
        for buffer in self._buffers.values():
            buffer.clear()

    def copy_row(self, row: int, source: KvCaches, source_row: int, length: int) -> None:
        """Take over the first `length` positions of a sequence that may lie in other caches, of another size."""
        for name, buffer in self._buffers.items():
            taken = source._buffers[name].rows(source_row, source_row + 1)
            _copy_slots(taken, buffer.rows(row, row + 1), length)

    def bind(self, inputs: dict[str, Buffer | Array], prediction: Prediction) -> Run:
        """The decoder on the first sequences, as many as `inputs` have: all that it takes but the caches."""
        count = inputs["inputs_embeds"].shape[0]
        rows = {name: buffer.rows(0, count) for name, buffer in self._buffers.items()}
        outputs = {out: rows[source] for out, source in self._graph.ports.aliases.items()}
        return self._graph.session.bind({**inputs, **rows}, {**prediction.buffers, **outputs})

    @property
    def bytes(self) -> int:
        return self._graph.cache_bytes(self.rows * self.slots)


def _copy_slots(source: Buffer, target: Buffer, length: int) -> None:
    """The first `length` slots of [B,KV,slots,d] into as many rows of caches with another number of slots."""
    count, heads, slots, width = source.shape
    lines, room = source.reshape(count * heads, slots * width), target.shape[2] * width
    targets = target.reshape(target.shape[0] * heads, room)
    for line in range(count * heads):
        taken = lines.rows(line, line + 1).reshape(slots * width).rows(0, length * width)
        targets.rows(line, line + 1).reshape(room).rows(0, length * width).copy_from(taken)
