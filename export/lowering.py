"""A module to an ONNX graph: captured by `torch.export`, then written operator by operator.

A program is captured once, in float16, and gives its graph in either type of float: float16 stands for the type wanted,
float32 stays what it is.
"""

from __future__ import annotations

import gc
import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from gar_edge.export.graph_builder import Dim, GraphBuilder, Like, Shape
from gar_edge.export.operators import RULES
from gar_edge.runtime.errors import GarExportError

CAPTURED = torch.float16

_KINDS = {
    torch.float16: ir.DataType.FLOAT16,
    torch.float32: ir.DataType.FLOAT,
    torch.int64: ir.DataType.INT64,
    torch.uint8: ir.DataType.UINT8,
    torch.bool: ir.DataType.BOOL,
}


@dataclass(frozen=True)
class Axis:
    """A dimension that only a run knows: one number wherever its name occurs.

    example: its size while the program is captured; bound: which sizes a run may have, to torch.
    """

    example: int
    bound: Any


@dataclass(frozen=True)
class Input:
    """A tensor that a program takes. shape: numbers, and names of axes."""

    dtype: torch.dtype
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Program:
    """A module of float16 that was captured, and how its graph is called."""

    captured: ExportedProgram
    inputs: Mapping[str, Input]
    outputs: Sequence[str]


def capture(
    module: nn.Module,
    inputs: Mapping[str, Input],
    axes: Mapping[str, Axis],
    outputs: Sequence[str],
    listed: int = 0,
) -> Program:
    """Capture a module of float16. Of its inputs, in its own order, the last `listed` are one list to it."""
    examples = [
        torch.zeros([axes[dim].example if isinstance(dim, str) else dim for dim in tensor.shape], dtype=tensor.dtype)
        for tensor in inputs.values()
    ]
    bounds = [
        {place: axes[dim].bound for place, dim in enumerate(tensor.shape) if isinstance(dim, str)}
        for tensor in inputs.values()
    ]
    plain = len(inputs) - listed
    arguments, dynamic = ((*flat[:plain], *([list(flat[plain:])] if listed else [])) for flat in (examples, bounds))
    with _uncollected():
        captured = torch.export.export(module, arguments, dynamic_shapes=dynamic, strict=False)
    return Program(captured, inputs, outputs)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Capturing makes millions of objects that live on, and the collector would go through them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def lower(program: Program, module: nn.Module, floats: ir.DataType, opset: int) -> ir.Graph:
    """The program's graph with `floats` for float16.

    module: the one that was captured, or the same made with that type, whose buffers become constants. Parameters
    become initialisers without values. `GarExportError` for an operator that has no rule.
    """
    to, kinds = GraphBuilder(opset), {**_KINDS, CAPTURED: floats}
    buffers, inputs = dict(module.named_buffers()), iter(program.inputs.items())
    specs = iter(program.captured.graph_signature.input_specs)
    values: dict[fx.Node, Any] = {}
    outputs: Sequence[ir.Value] = ()
    for node in program.captured.graph.nodes:
        found = node.meta.get("val")
        if node.op == "placeholder":
            spec = next(specs)
            part = str(spec.target)
            if spec.kind is InputKind.USER_INPUT:
                name, tensor = next(inputs)
                values[node] = to.input(name, kinds[found.dtype], _shape(found), tensor.shape)
            elif spec.kind is InputKind.PARAMETER:
                values[node] = to.parameter(part, kinds[found.dtype], found.shape)
            else:
                values[node] = to.constant(buffers[part].numpy(), part)
        elif node.op == "output":
            outputs = [values[result] for result in node.args[0]]
        elif node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        elif isinstance(found, (Tensor, list, tuple)):
            values[node] = _applied(to, node, kinds, values)
        elif isinstance(found, torch.SymInt):
            values[node] = _dim(found)
    return to.graph(type(module).__name__.lower(), dict(zip(program.outputs, outputs, strict=True)))


def _applied(
    to: GraphBuilder, node: fx.Node, kinds: Mapping[torch.dtype, ir.DataType], values: Mapping[fx.Node, Any]
) -> ir.Value | list[ir.Value]:
    """What an operator gives, by its rule."""
    rule = RULES.get(node.target)
    if rule is None:
        raise GarExportError(f"{node.target}: export/operators.py has no rule for it")
    found = node.meta["val"]
    likes = [
        Like(node.name, kinds[tensor.dtype], _shape(tensor))
        for tensor in ([found] if isinstance(found, Tensor) else found)
    ]
    arguments: Any = fx.map_arg(node.args, lambda argument: values[argument])
    options: Any = fx.map_arg(node.kwargs, lambda argument: values[argument])
    return rule(to, likes[0] if isinstance(found, Tensor) else likes, *arguments, **options)


def _shape(tensor: Tensor) -> Shape:
    return tuple(_dim(dim) for dim in tensor.shape)


def _dim(dim: int | torch.SymInt) -> Dim:
    """A number, or torch's expression of what only a run knows."""
    if isinstance(dim, int):
        return dim
    expression: Dim = dim.node.expr
    return expression
