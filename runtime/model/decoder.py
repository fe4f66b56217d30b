"""The decoder of a bundle, and the sequences that it goes through."""

from __future__ import annotations

import numpy as np

from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.engines.limits import round_up
from gar_edge.runtime.engines.protocol import Backend
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.model.append import AppendingSequence
from gar_edge.runtime.model.in_place import InPlaceSequence
from gar_edge.runtime.model.sequence import TokenSequence

_BATCH_AXIS, _LENGTH_AXIS, _CAPACITY_AXIS = 0, 1, 3  # of inputs_embeds [B,S,C], of attention_mask [B,1,S,capacity]


class DecoderRunner:
    """The decoder graph of one bundle.

    longest: tokens of prompt and answer together, by the model's context and the engine's cache. batches: whether it
    takes several sequences in one run. built_capacity: the cache size that the engine knows; None: any.
    """

    def __init__(self, backend: Backend, manifest: Manifest) -> None:
        self.backend = backend
        self.dims = manifest.dimensions
        self.graph = manifest.graphs["decoder"]
        self.session = backend.session("decoder")
        ports = {port.name: np.dtype(port.dtype) for port in (*self.graph.inputs, *self.graph.outputs)}
        self.dtype = ports["inputs_embeds"]
        self.logits_dtype = ports["logits"]
        self.built_capacity = self.session.limit("attention_mask", _CAPACITY_AXIS)
        self.longest = min(self.dims.context, self.built_capacity or self.dims.context)
        # The appending form lays positions first, so that a past is a view; several sequences would need copies.
        self.batches = not self.graph.appends and self.session.limit("inputs_embeds", _BATCH_AXIS) != 1
        self.chunk = min(
            backend.prefill_chunk, self.session.limit("inputs_embeds", _LENGTH_AXIS) or backend.prefill_chunk
        )

    def capacity_for(self, length: int) -> int:
        """Positions that a sequence of `length` may come to have; an engine may know only one size.

        Caches that are updated in place grow with their use, those that are appended to are made once.
        `GarBackendError` where the engine's size is too small.
        """
        if self.built_capacity is None:
            longest = max(self.dims.context, length)
            return longest if self.graph.aliases else min(round_up(length), longest)
        if length > self.built_capacity:
            raise GarBackendError(
                f"{length} tokens were asked for and the engine's cache holds {self.built_capacity}; "
                f"gar-engine build --capacity {length} makes a larger one"
            )
        return self.built_capacity

    def cache_bytes(self, capacity: int) -> int:
        """Memory of one sequence's caches."""
        dims = self.dims
        return 2 * dims.layers * dims.kv_heads * dims.head_dim * capacity * self.dtype.itemsize

    def start(self, length: int) -> TokenSequence:
        """An empty sequence with room for `length` positions."""
        kind = AppendingSequence if self.graph.appends else InPlaceSequence
        return kind(self, self.capacity_for(length))
