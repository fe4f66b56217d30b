"""What each ATen operator of the models becomes in ONNX: a rule for every one, and nothing for any other.

A rule takes where to build, what the operator gives (a list where it gives several), and the operator's own arguments
in their own order: values for tensors, numbers or expressions for dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch

from gar_edge.export.graph_builder import Dim, GraphBuilder, Like
from gar_edge.models.ops import ROTARY, SCATTER_CACHE
from gar_edge.runtime.errors import GarExportError

NORM_OPSET = ATTENTION_OPSET = 23  # have RMSNormalization and Attention
END = np.iinfo(np.int64).max  # of a slice without one


Rule = Callable[..., "ir.Value | list[ir.Value]"]


def _same(op: str) -> Rule:
    """ONNX has an operator of the same operands, and broadcasts as torch does."""

    def rule(to: GraphBuilder, like: Like, *operands: ir.Value | float) -> ir.Value:
        first = next(operand for operand in operands if isinstance(operand, ir.Value))
        if first.dtype != like.kind:
            raise GarExportError(f"{like.name}: {op} of {first.dtype} with a number of another type")
        inputs = [to.operand(operand, first) for operand in operands]
        return to.node(op, inputs, like)

    return rule


def _reshape(to: GraphBuilder, like: Like, x: ir.Value, *_: object) -> ir.Value:
    return to.reshape(x, like)


def _unsqueeze(to: GraphBuilder, like: Like, x: ir.Value, axis: int) -> ir.Value:
    return to.node("Unsqueeze", [x, to.ints(axis % len(like.shape))], like)


def _transpose(to: GraphBuilder, like: Like, x: ir.Value, first: int, second: int) -> ir.Value:
    order = list(range(len(like.shape)))
    order[first], order[second] = order[second], order[first]
    return _permute(to, like, x, order)


def _permute(to: GraphBuilder, like: Like, x: ir.Value, order: Sequence[int]) -> ir.Value:
    return to.node("Transpose", [x], like, perm=[axis % len(order) for axis in order])


def _chunk(to: GraphBuilder, likes: Sequence[Like], x: ir.Value, parts: int, axis: int = 0) -> list[ir.Value]:
    return to.nodes("Split", [x], likes, axis=axis % len(likes[0].shape), num_outputs=parts)


def _cat(to: GraphBuilder, like: Like, parts: Sequence[ir.Value], axis: int = 0) -> ir.Value:
    return to.node("Concat", parts, like, axis=axis)


def _slice(to: GraphBuilder, like: Like, x: ir.Value, axis: int, start: int, end: int = END) -> ir.Value:
    inputs = [x, to.ints(start), to.ints(end), to.ints(axis)]
    return to.node("Slice", inputs, like)


def _expand(to: GraphBuilder, like: Like, x: ir.Value, _: Sequence[Dim]) -> ir.Value:
    new = len(like.shape) - len(to.shape(x))
    pairs = zip(like.shape[new:], to.shape(x), strict=True)
    target = to.vector([*like.shape[:new], *(1 if wanted == there else wanted for wanted, there in pairs)])
    return to.node("Expand", [x, target], like)


def _repeat(to: GraphBuilder, like: Like, x: ir.Value, times: Sequence[int]) -> ir.Value:
    return to.node("Tile", [x, to.ints(*times)], like)


def _repeat_interleave(to: GraphBuilder, like: Like, x: ir.Value, times: int, axis: int) -> ir.Value:
    axis %= len(like.shape)
    front, behind = to.shape(x)[: axis + 1], to.shape(x)[axis + 1 :]
    apart = to.node("Unsqueeze", [x, to.ints(axis + 1)], replace(like, shape=(*front, 1, *behind)))
    repeats = [times if place == axis + 1 else 1 for place in range(len(like.shape) + 1)]
    return to.reshape(to.node("Tile", [apart, to.ints(*repeats)], replace(like, shape=(*front, times, *behind))), like)


def _index_select(to: GraphBuilder, like: Like, x: ir.Value, axis: int, index: ir.Value) -> ir.Value:
    return to.node("Gather", [x, index], like, axis=axis)


def _where(to: GraphBuilder, like: Like, condition: ir.Value, yes: float, no: float) -> ir.Value:
    numbers = [to.constant(np.array(number, like.kind.numpy())) for number in (yes, no)]
    return to.node("Where", [condition, *numbers], like)


def _cast(to: GraphBuilder, like: Like, x: ir.Value, *_: torch.dtype) -> ir.Value:
    if x.dtype == like.kind:
        return x
    return to.node("Cast", [x], like, to=like.kind)


def _arange(to: GraphBuilder, like: Like, end: Dim, **_: object) -> ir.Value:
    inputs = [to.scalar(0), to.scalar(end), to.scalar(1)]
    return to.node("Range", inputs, like)


def _mean(to: GraphBuilder, like: Like, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    return to.node("ReduceMean", [x, to.ints(*axes)], like, keepdims=0)


def _argmax(to: GraphBuilder, like: Like, x: ir.Value, axis: int) -> ir.Value:
    return to.node("ArgMax", [x], like, axis=axis, keepdims=0)


def _softmax(to: GraphBuilder, like: Like, x: ir.Value, axis: int) -> ir.Value:
    return to.node("Softmax", [x], like, axis=axis)


def _silu(to: GraphBuilder, like: Like, x: ir.Value) -> ir.Value:
    gate = to.node("Sigmoid", [x], like)
    return to.node("Mul", [x, gate], like)


def _conv2d(
    to: GraphBuilder, like: Like, x: ir.Value, weight: ir.Value, bias: ir.Value | None, strides: Sequence[int]
) -> ir.Value:
    sides = list(to.shape(weight)[2:])
    inputs = [x, weight] if bias is None else [x, weight, bias]
    return to.node("Conv", inputs, like, kernel_shape=sides, strides=list(strides))


def _linear(to: GraphBuilder, like: Like, x: ir.Value, rows: ir.Value) -> ir.Value:
    """Of two axes, its weights [out,in] as they lie."""
    return to.node("Gemm", [x, rows], like, transB=1)


def _layer_norm(
    to: GraphBuilder,
    like: Like,
    x: ir.Value,
    shape: Sequence[int],
    weight: ir.Value,
    bias: ir.Value,
    epsilon: float = 1e-5,  # torch leaves out what is the default
    _: bool = True,
) -> ir.Value:
    return to.node("LayerNormalization", [x, weight, bias], like, axis=-len(shape), epsilon=epsilon)


def _rms_norm(
    to: GraphBuilder, like: Like, x: ir.Value, shape: Sequence[int], weight: ir.Value, epsilon: float
) -> ir.Value:
    """One operator, or written out in float32 where the opset has none."""
    if to.opset >= NORM_OPSET:
        return to.node("RMSNormalization", [x, weight], like, axis=-len(shape), epsilon=epsilon)
    full = replace(like, kind=ir.DataType.FLOAT)
    first = len(like.shape) - len(shape)
    each_row = replace(full, shape=(*like.shape[:first], *[1] * len(shape)))
    states = _cast(to, full, x)
    square = to.node("Pow", [states, to.operand(2.0, states)], full)
    mean = to.node("ReduceMean", [square, to.ints(*range(first, len(like.shape)))], each_row, keepdims=1)
    root = to.node("Sqrt", [to.node("Add", [mean, to.operand(epsilon, mean)], each_row)], each_row)
    normed = to.node("Mul", [states, to.node("Reciprocal", [root], each_row)], full)
    scale = _cast(to, replace(full, shape=to.shape(weight)), weight)
    return _cast(to, like, to.node("Mul", [normed, scale], full))


def _attention(
    to: GraphBuilder, like: Like, query: ir.Value, key: ir.Value, value: ir.Value, bias: ir.Value | None = None
) -> ir.Value:
    """One operator, or products and a softmax where the opset has none: every engine fuses these, JetPack 6's too."""
    if to.opset >= ATTENTION_OPSET:
        inputs = [query, key, value] if bias is None else [query, key, value, bias]
        return to.node("Attention", inputs, like)
    *front, keys, wide = to.shape(key)
    scores = replace(like, shape=(*like.shape[:-1], keys))
    order = [*range(len(front)), len(front) + 1, len(front)]
    # Before the product: scores of float16 have little room.
    scaled = to.node("Mul", [query, to.operand(float(wide) ** -0.5, query)], replace(like, shape=to.shape(query)))
    turned = to.node("Transpose", [key], replace(like, shape=(*front, wide, keys)), perm=order)
    products = to.node("MatMul", [scaled, turned], scores)
    if bias is not None:
        products = to.node("Add", [products, bias], scores)
    return to.node("MatMul", [to.node("Softmax", [products], scores, axis=-1), value], like)


def _rotary(to: GraphBuilder, like: Like, x: ir.Value, cos: ir.Value, sin: ir.Value) -> ir.Value:
    return to.node("RotaryEmbedding", [x, cos, sin], like)


def _scatter_cache(to: GraphBuilder, like: Like, cache: ir.Value, update: ir.Value, index: ir.Value) -> ir.Value:
    return to.node("TensorScatter", [cache, update, index], like, axis=2)


_ATEN = torch.ops.aten

RULES: Mapping[object, Rule] = {
    _ATEN.add.Tensor: _same("Add"),
    _ATEN.arange.default: _arange,
    _ATEN.argmax.default: _argmax,
    _ATEN.cat.default: _cat,
    _ATEN.chunk.default: _chunk,
    _ATEN.conv2d.default: _conv2d,
    _ATEN.cos.default: _same("Cos"),
    _ATEN.expand.default: _expand,
    _ATEN.flatten.using_ints: _reshape,
    _ATEN.gelu.default: _same("Gelu"),
    _ATEN.index_select.default: _index_select,
    _ATEN.layer_norm.default: _layer_norm,
    _ATEN.linear.default: _linear,
    _ATEN.matmul.default: _same("MatMul"),
    _ATEN.mean.dim: _mean,
    _ATEN.mul.Tensor: _same("Mul"),
    _ATEN.permute.default: _permute,
    _ATEN.repeat.default: _repeat,
    _ATEN.repeat_interleave.self_int: _repeat_interleave,
    _ATEN.rms_norm.default: _rms_norm,
    _ATEN.scaled_dot_product_attention.default: _attention,
    _ATEN.silu.default: _silu,
    _ATEN.sin.default: _same("Sin"),
    _ATEN.slice.Tensor: _slice,
    _ATEN.softmax.int: _softmax,
    _ATEN.sub.Tensor: _same("Sub"),
    _ATEN.to.dtype: _cast,
    _ATEN.transpose.int: _transpose,
    _ATEN.unflatten.int: _reshape,
    _ATEN.unsqueeze.default: _unsqueeze,
    _ATEN.where.Scalar: _where,
    ROTARY: _rotary,
    SCATTER_CACHE: _scatter_cache,
}
