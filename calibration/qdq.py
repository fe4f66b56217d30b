"""Quantise and dequantise nodes into a captured graph, on the inputs of its matrix products and nowhere else.

E4M3 has one form. Integers have two, which share their weights:
- *signed*: int8 activations with zero point 0, the only kind that TensorRT takes.
- *unsigned*: the same steps shifted by 128 into uint8. No value changes, and ONNX Runtime on x86 then makes every
  product an integer kernel; with int8 it leaves those in float whose input feeds several of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from gar_edge.calibration.plan import ROUNDED, SCALE, ZERO_POINT, Plan, Scheme, SitePlan
from gar_edge.calibration.rounding import block_of
from gar_edge.calibration.sites import HEAD

SHIFT = 128
# With opset 20, ONNX Runtime before 1.32 moves a Transpose between E4M3's pair of nodes and then refuses it for its
# type, which opset 21 allows: findings/onnxruntime-float8-transpose.sh. No engine with 8-bit floats needs the older.
FLOAT8_OPSET, FLOAT8_IR = 21, 10
_KINDS = {
    Scheme.INT8: ir.DataType.INT8,
    Scheme.INT4: ir.DataType.INT4,
    Scheme.FP8: ir.DataType.FLOAT8E4M3FN,
}


def insert_qdq(model: ir.Model, plan: Plan, unsigned: bool) -> None:
    """Rewrite a captured graph in place; its new parameters still have a type and a shape but no values."""
    if any(site.scheme is Scheme.FP8 for site in plan.sites.values()):
        imports = model.graph.opset_imports
        imports[""] = max(imports[""], FLOAT8_OPSET)
        model.ir_version = max(model.ir_version, FLOAT8_IR)
    for site in plan.sites.values():
        if site.scheme is Scheme.FLOAT:
            continue
        if site.scheme.largest:
            _quantise_input(model.graph, site, unsigned)
        for name in site.site.weights:
            _quantise_weight(model.graph, name, site.scheme)


def _quantise_input(graph: ir.Graph, plan: SitePlan, unsigned: bool) -> None:
    """One pair for all the linears that read this activation."""
    name = plan.site.weights[0]
    source = _reader(graph, name).inputs[0]
    assert source is not None
    assert source.dtype is not None
    producer = source.producer()
    assert producer is not None
    shifted = unsigned and plan.scheme is Scheme.INT8
    kind = ir.DataType.UINT8 if shifted else _KINDS[plan.scheme]
    scale = _constant(graph, f"{name}_input_scale", np.array(plan.step, source.dtype.numpy()))
    zero = _constant(graph, f"{name}_input_zero_point", np.array(SHIFT if shifted else 0, kind.numpy()))
    readers = [_reader(graph, weight) for weight in plan.site.weights]
    quantised = _node("QuantizeLinear", [source, scale, zero], f"{name}_input_q", kind, source.shape)
    restored = _node(
        "DequantizeLinear", [quantised.outputs[0], scale, zero], f"{name}_input_dq", source.dtype, source.shape
    )
    graph.insert_after(producer, [quantised, restored])
    for reader in readers:
        reader.replace_input_with(0, restored.outputs[0])


def _quantise_weight(graph: ir.Graph, name: str, scheme: Scheme) -> None:
    weight = graph.initializers.pop(name)
    reader = next(iter(weight.uses())).node
    shape = weight.shape
    assert shape is not None
    assert weight.dtype is not None
    rows, columns = shape.numpy()
    axis = 0 if name == HEAD else 1
    attributes = [ir.AttrInt64("axis", axis)]
    scales: tuple[int, ...] = ((rows, columns)[axis],)
    if scheme is Scheme.INT4:
        block = block_of(rows)
        assert block is not None
        scales = (rows // block, columns)
        attributes = [ir.AttrInt64("axis", 0), ir.AttrInt64("block_size", block)]
    kind = _KINDS[scheme]
    inputs = [
        _parameter(graph, name + ROUNDED, kind, (rows, columns)),
        _parameter(graph, name + SCALE, weight.dtype, scales),
    ]
    if name == HEAD and scheme is Scheme.INT8:
        inputs.append(_parameter(graph, name + ZERO_POINT, kind, scales))
    restored = _node("DequantizeLinear", inputs, f"{name}_dq", weight.dtype, shape, attributes)
    graph.insert_before(reader, restored)
    for use in list(weight.uses()):
        use.node.replace_input_with(use.idx, restored.outputs[0])


def store_as_half(model: ir.Model, parameters: Iterable[str]) -> None:
    """Let a float32 graph read its float parameters from float16 storage: a Cast each, folded when it is loaded.

    So the two forms of a quantised graph share every byte.
    """
    graph = model.graph
    first = next(iter(graph))
    for name in parameters:
        value = graph.initializers.get(name)
        if value is None or value.dtype is not ir.DataType.FLOAT:
            continue
        uses = list(value.uses())
        cast = _node(
            "Cast", [value], f"{name}_float", ir.DataType.FLOAT, value.shape, [ir.AttrInt64("to", ir.DataType.FLOAT)]
        )
        value.type = ir.TensorType(ir.DataType.FLOAT16)  # a new one: copies of a graph share theirs
        graph.insert_before(first, cast)
        for use in uses:
            use.node.replace_input_with(use.idx, cast.outputs[0])


def _reader(graph: ir.Graph, weight: str) -> ir.Node:
    uses = list(graph.initializers[weight].uses())
    if len(uses) != 1 or uses[0].node.op_type not in ("MatMul", "Gemm"):
        raise ValueError(f"{weight}: expected one MatMul or Gemm to read it")
    return uses[0].node


def _parameter(graph: ir.Graph, name: str, kind: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
    value = ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))
    graph.initializers[name] = value
    return value


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(()), const_value=tensor)
    graph.initializers[name] = value
    return value


def _node(
    kind: str,
    inputs: list[ir.Value],
    name: str,
    dtype: ir.DataType,
    shape: ir.Shape | None,
    attributes: Iterable[ir.Attr] = (),
) -> ir.Node:
    output = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape)
    return ir.Node("", kind, inputs, attributes, outputs=[output], name=f"node_{name}")
