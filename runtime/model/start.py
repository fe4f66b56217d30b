"""A new sequence, of the kind that the decoder graph takes."""

from __future__ import annotations

from gar_edge.runtime.model.appending import AppendingSequence
from gar_edge.runtime.model.decoder import DecoderGraph
from gar_edge.runtime.model.in_place import InPlaceSequence
from gar_edge.runtime.model.sequence import TokenSequence


def start_sequence(graph: DecoderGraph, length: int) -> TokenSequence:
    """An empty sequence with room for `length` positions; `GarBackendError` where the engine has not as many."""
    kind = AppendingSequence if graph.ports.appends else InPlaceSequence
    return kind(graph, graph.capacity_for(length))
