"""The decoder graph of a bundle: its sizes and types, what its engine allows, and the session that runs it."""

from __future__ import annotations

import numpy as np

from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.engines.limits import round_up
from gar_edge.runtime.engines.protocol import Backend
from gar_edge.runtime.errors import GarBackendError

_BATCH_AXIS, _LENGTH_AXIS, _CAPACITY_AXIS = 0, 1, 3  # of inputs_embeds [B,S,C], of attention_mask [B,1,S,capacity]


class DecoderGraph:
    """What sequences know of the decoder that they go through.

    longest: tokens of prompt and answer together, by the model's context and the engine's cache. side_by_side: most
    sequences of one run; None: any number. built_capacity: the cache size that the engine knows; None: any. fixed:
    whether a sequence's caches are of one size from its start on. chunk: positions of a prompt that one run takes at
    most.
    """

    def __init__(self, backend: Backend, manifest: Manifest) -> None:
        self.backend = backend
        self.dims = manifest.dimensions
        self.ports = manifest.graphs["decoder"]
        self.session = backend.session("decoder")
        types = {port.name: np.dtype(port.dtype) for port in (*self.ports.inputs, *self.ports.outputs)}
        self.dtype = types["inputs_embeds"]
        self.logits_dtype = types["logits"]
        self.built_capacity = self.session.limit("attention_mask", _CAPACITY_AXIS)
        self.longest = min(self.dims.context, self.built_capacity or self.dims.context)
        # The appending form lays positions first, so that a past is a view; several sequences would need copies.
        self.side_by_side = 1 if self.ports.appends else self.session.limit("inputs_embeds", _BATCH_AXIS)
        self.fixed = self.built_capacity is not None or bool(self.ports.appends)
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
            return longest if self.ports.aliases else min(round_up(length), longest)
        if length > self.built_capacity:
            raise GarBackendError(
                f"{length} tokens were asked for and the engine's cache holds {self.built_capacity}; "
                f"gar-engine build --capacity {length} makes a larger one"
            )
        return self.built_capacity

    def cache_bytes(self, positions: int) -> int:
        """Memory of one sequence's caches of so many positions."""
        dims = self.dims
        sets = 2 if self.ports.appends else 1  # an appending decoder reads one and writes another
        return sets * 2 * dims.layers * dims.kv_heads * dims.head_dim * positions * self.dtype.itemsize

    def planned_bytes(self, length: int) -> int:
        """Memory that the caches of a sequence come to take until it has `length` positions."""
        return self.cache_bytes(self.built_capacity or round_up(length))
