"""Small edits of ONNX files, on the bytes themselves: the runtime carries neither onnx nor protobuf.

A protobuf message is a sequence of fields, each a tag (field number and wire type, a varint) and a value; a nested
message is a value with its length before it. An edit copies every field as it stands but those on the way to what it
changes, whose lengths it writes anew. Field numbers: onnx/onnx.proto, unchanged since ONNX 1.0 and never reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

Edit: TypeAlias = Callable[[bytes], bytes]
Tree: TypeAlias = "Mapping[int, Tree | Edit | None]"  # what to do with a message's fields; None drops one

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_SIZE = {_FIXED64: 8, _FIXED32: 4}

# ModelProto
_GRAPH, _FUNCTIONS = 7, 25
# GraphProto: its ValueInfoProtos
_INPUT, _OUTPUT, _VALUE_INFO = 11, 12, 13
# ValueInfoProto.type -> TypeProto.tensor_type -> .shape -> TensorShapeProto.dim, a Dimension
_TYPE, _TENSOR_TYPE, _SHAPE, _DIM = 2, 1, 2, 1
# TensorShapeProto.Dimension
_DIM_VALUE, _DIM_PARAM = 1, 2


class _Field(NamedTuple):
    number: int
    wire_type: int
    raw: bytes  # tag and value
    content: bytes  # of a nested message, string or byte string; else empty


def fix_dimensions(model: bytes, sizes: Mapping[str, int]) -> bytes:
    """The model with the symbolic dimensions of these names as numbers, in its inputs, outputs and known shapes.

    ValueError where the bytes are not a protobuf message, or the model has no dimension of one of the names.
    """
    found: set[str] = set()

    def fix(dimension: bytes) -> bytes:
        kept = bytearray()
        for field in _fields(dimension):
            name = field.content.decode("utf-8", "replace") if field.number == _DIM_PARAM else ""
            if name in sizes:
                found.add(name)
                kept += varint(_DIM_VALUE << 3 | _VARINT) + varint(sizes[name])
            else:
                kept += field.raw
        return bytes(kept)

    value: Tree = {_TYPE: {_TENSOR_TYPE: {_SHAPE: {_DIM: fix}}}}
    fixed = _edit(model, {_GRAPH: {_INPUT: value, _OUTPUT: value, _VALUE_INFO: value}})
    if missing := sorted(sizes.keys() - found):
        raise ValueError(f"no dimension named {', '.join(missing)}")
    return fixed


def strip_functions(model: bytes) -> bytes:
    """The model without its local functions, so that nodes of their names can only be plugins."""
    return _edit(model, {_FUNCTIONS: None})


def _edit(message: bytes, tree: Tree) -> bytes:
    edited = bytearray()
    for field in _fields(message):
        if field.number not in tree:
            edited += field.raw
            continue
        inner = tree[field.number]
        if inner is None:
            continue
        if field.wire_type != _BYTES:
            raise ValueError(f"field {field.number} is not a message")
        content = inner(field.content) if callable(inner) else _edit(field.content, inner)
        edited += varint(field.number << 3 | _BYTES) + varint(len(content)) + content
    return bytes(edited)


def _fields(message: bytes) -> Iterator[_Field]:
    at = 0
    while at < len(message):
        begin = at
        tag, at = _read_varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        content_begin = at
        if wire_type == _VARINT:
            _, at = _read_varint(message, at)
        elif wire_type == _BYTES:
            length, content_begin = _read_varint(message, at)
            at = content_begin + length
        elif wire_type in _FIXED_SIZE:
            at += _FIXED_SIZE[wire_type]
        else:
            raise ValueError(f"wire type {wire_type} is unknown")
        if number == 0 or at > len(message):
            raise ValueError("the bytes are no protobuf message")
        yield _Field(number, wire_type, message[begin:at], message[content_begin:at] if wire_type == _BYTES else b"")


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """A varint and where it ends: seven bits a byte, the lowest first, the top bit set on all but the last."""
    value = 0
    for place in range(10):
        if at + place >= len(message):
            break
        byte = message[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("the bytes are no protobuf message")


def varint(value: int) -> bytes:
    """A number in protobuf's encoding: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
