"""An ONNX model of one matrix product, written on the bytes: what can a machine's kernels do?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.files.onnx_bytes import FLOAT, INT8, INT32, UINT8, field, model, node, port

INPUT, OUTPUT = "a", "y"  # names of the model's ports

_IR_VERSION, _OPSET = 8, 17


def product_model(weights: NDArray[np.int8] | NDArray[np.float32], rows: int) -> bytes:
    """A model of `a` [rows,K] times constant weights [K,N], into `y` [rows,N].

    int8 weights: `MatMulInteger` of a uint8 `a` into int32, as the quantised graphs' products are; float32 ones:
    `MatMul` of float32.
    """
    operator, a, b, out = ("MatMul", FLOAT, FLOAT, FLOAT)
    if weights.dtype == np.int8:
        operator, a, b, out = ("MatMulInteger", UINT8, INT8, INT32)
    depth, columns = weights.shape
    tensor = field(1, depth) + field(1, columns) + field(2, b) + field(8, "b") + field(9, weights.tobytes())
    graph = (
        field(1, node(operator, (INPUT, "b"), OUTPUT)) + field(2, "product") + field(5, tensor)
        + field(11, port(INPUT, a, (rows, depth))) + field(12, port(OUTPUT, out, (rows, columns)))
    )  # fmt: skip
    return model(graph, _IR_VERSION, _OPSET)
