"""An ONNX model of one `TensorScatter`, the newest operator of the standard decoder: does an engine know it?"""

from __future__ import annotations

from gar_edge.runtime.files.onnx_bytes import FLOAT, INT64, field, model, node, port

OPSET = 24  # which brought the operator, and which the standard decoder is written in
_IR_VERSION = 10
_SLOTS = 4


def scatter_model() -> bytes:
    """`update` [1,1,1,2] written into `cache` [1,1,4,2] at slot `index` [1], into `y`."""
    cache = (1, 1, _SLOTS, 2)
    graph = (
        field(1, node("TensorScatter", ("cache", "update", "index"), "y", axis=2)) + field(2, "scatter")
        + field(11, port("cache", FLOAT, cache)) + field(11, port("update", FLOAT, (1, 1, 1, 2)))
        + field(11, port("index", INT64, (1,))) + field(12, port("y", FLOAT, cache))
    )  # fmt: skip
    return model(graph, _IR_VERSION, OPSET)
