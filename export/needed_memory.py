"""What a bundle takes in a device's memory: weights as engines hold them, and a full KV cache."""

from __future__ import annotations

import math

from gar_edge.export.graphs import Precision
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.weights import expected_shapes

_BYTES = {Precision.FP32: 4.0, Precision.FP16: 2.0, Precision.INT8: 1.0, Precision.FP8: 1.0}
_BLOCK = 64  # weights of int4 that share a float16 scale
_TEXT_TOKENS = 512  # of a prompt's words and an answer


def needed_gb(checkpoint: Checkpoint, precision: Precision, tiles: int, compat: bool) -> float:
    """GB of weights and of one sequence's cache in float16, which a compat decoder holds twice; no scratch.

    tiles: most beside the thumbnail. The token table stays on disk; a tied head is its copy and counts.
    """
    text, regions = checkpoint.config.text, len(checkpoint.config.replay_tokens)
    layer = text.hidden * text.head_dim * 2 * (text.heads + text.kv_heads) + 3 * text.hidden * text.ffn
    layers = text.layers * layer
    everything = sum(math.prod(shape) for shape in expected_shapes(checkpoint.config, checkpoint.tied).values())
    others = everything - layers - (0 if checkpoint.tied else text.vocab * text.hidden)
    if precision is Precision.INT4:
        weights = layers * (0.5 + 2 / _BLOCK) + others
    else:
        weights = (layers + others) * _BYTES[precision]
    positions = min((tiles + 1 + regions) * checkpoint.config.tile_tokens + _TEXT_TOKENS, text.context)
    cache = positions * text.layers * 2 * text.kv_heads * text.head_dim * 2 * (2 if compat else 1)
    return (weights + cache) / 1e9
