"""An ONNX model of one matrix product, written on the bytes: what a machine's kernels can do, without the onnx package.

Numbers of types and of fields: onnx/onnx.proto, unchanged since ONNX 1.0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.files.onnx_file import varint

INPUT, OUTPUT = "a", "y"  # names of the model's ports

_FLOAT, _UINT8, _INT8, _INT32 = 1, 2, 3, 6  # elem_type of TensorProto
_IR_VERSION, _OPSET = 8, 17


def product_model(weights: NDArray[np.int8] | NDArray[np.float32], rows: int) -> bytes:
    """A model of `a` [rows,K] times constant weights [K,N], into `y` [rows,N].

    int8 weights: `MatMulInteger` of a uint8 `a` into int32, as the quantised graphs' products are; float32 ones:
    `MatMul` of float32.
    """
    operator, a, b, out = ("MatMul", _FLOAT, _FLOAT, _FLOAT)
    if weights.dtype == np.int8:
        operator, a, b, out = ("MatMulInteger", _UINT8, _INT8, _INT32)
    depth, columns = weights.shape
    tensor = _field(1, depth) + _field(1, columns) + _field(2, b) + _field(8, "b") + _field(9, weights.tobytes())
    node = _field(1, INPUT) + _field(1, "b") + _field(2, OUTPUT) + _field(4, operator)
    graph = (
        _field(1, node) + _field(2, "product") + _field(5, tensor)
        + _field(11, _port(INPUT, a, (rows, depth))) + _field(12, _port(OUTPUT, out, (rows, columns)))
    )  # fmt: skip
    return _field(1, _IR_VERSION) + _field(7, graph) + _field(8, _field(1, "") + _field(2, _OPSET))


def _port(name: str, kind: int, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protobuf message: a varint, or bytes with their length before them."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content
