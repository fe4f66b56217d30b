"""Parts of ONNX models written on the bytes, for models of one operator that ask an engine what it can do.

Numbers of types and of fields: onnx/onnx.proto, unchanged since ONNX 1.0.
"""

from __future__ import annotations

from gar_edge.runtime.files.onnx_file import varint

FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7  # elem_type of TensorProto
_INT = 2  # AttributeProto's type of an integer


def field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protobuf message: a varint, or bytes with their length before them."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def port(name: str, kind: int, shape: tuple[int, ...]) -> bytes:
    """A `ValueInfoProto`: an input or output of elements `kind`."""
    dims = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))


def node(operator: str, inputs: tuple[str, ...], output: str, **integers: int) -> bytes:
    """A `NodeProto` with one output; `integers`: its attributes."""
    attributes = b"".join(
        field(5, field(1, name) + field(3, value) + field(20, _INT)) for name, value in integers.items()
    )
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, operator) + attributes


def model(graph: bytes, ir_version: int, opset: int) -> bytes:
    """A `ModelProto` around a `GraphProto`."""
    return field(1, ir_version) + field(7, graph) + field(8, field(1, "") + field(2, opset))
