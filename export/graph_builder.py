"""An ONNX graph node by node, its dimensions numbers or expressions of what only a run knows.

Such a dimension is copied from an operator's input (0 of `Reshape`), inferred (its -1), or read from a graph input
(`Shape`): no graph holds a size that its model does not have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import sympy
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarExportError

Dim: TypeAlias = int | sympy.Expr
Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class Like:
    """What a node gives: what its name begins with, its type and its shape."""

    name: str
    kind: ir.DataType
    shape: Shape


class GraphBuilder:
    """The nodes so far. opset: the version of ONNX's operators."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self._nodes: list[ir.Node] = []
        self._inputs: list[ir.Value] = []
        self._initializers: list[ir.Value] = []
        self._shapes: dict[ir.Value, Shape] = {}
        self._taken: Counter[str] = Counter()  # names
        self._constants: dict[tuple[str, bytes, tuple[int, ...], str | None], ir.Value] = {}
        self._names: dict[Dim, str] = {}  # of dimensions
        self._places: dict[Dim, tuple[ir.Value, int]] = {}  # the input and its axis where one can be read
        self._read: dict[Dim, ir.Value] = {}
        self._sources: dict[ir.Value, ir.Value] = {}  # what a reshaped value was made of

    def input(self, name: str, kind: ir.DataType, shape: Shape, called: Sequence[int | str]) -> ir.Value:
        """A graph input. called: its shape with a name for each dimension that only a run knows."""
        named = [(axis, dim) for axis, dim in enumerate(called) if isinstance(dim, str)]
        self._names |= {shape[axis]: dim for axis, dim in named}
        value = self._value(name, kind, shape)
        for axis, _ in named:
            self._places.setdefault(shape[axis], (value, axis))
        self._inputs.append(value)
        return value

    def parameter(self, name: str, kind: ir.DataType, shape: Sequence[int]) -> ir.Value:
        """An initialiser that gets its value elsewhere."""
        value = self._value(name, kind, tuple(shape))
        self._initializers.append(value)
        return value

    def constant(self, array: NDArray[Any], name: str | None = None) -> ir.Value:
        """An initialiser with a value, one for all that need the same under one name."""
        key = array.dtype.str, array.tobytes(), array.shape, name
        if key not in self._constants:
            tensor = ir.tensor(array)
            value = self.parameter(name or f"constant_{len(self._constants)}", tensor.dtype, array.shape)
            tensor.name, value.const_value = value.name, tensor
            self._constants[key] = value
        return self._constants[key]

    def ints(self, *numbers: int) -> ir.Value:
        """A constant int64 [N]."""
        return self.constant(np.array(numbers, np.int64))

    def operand(self, number: ir.Value | float, like: ir.Value) -> ir.Value:
        """A value as it is, a number as a constant of the other operand's type."""
        if isinstance(number, ir.Value):
            return number
        assert like.dtype is not None
        return self.constant(np.array(number, like.dtype.numpy()))

    def shape(self, value: ir.Value) -> Shape:
        """Its dimensions."""
        return self._shapes[value]

    def node(self, op: str, inputs: Sequence[ir.Value], like: Like, **attributes: Any) -> ir.Value:
        """A node with one output."""
        return self.nodes(op, inputs, [like], **attributes)[0]

    def nodes(self, op: str, inputs: Sequence[ir.Value], likes: Sequence[Like], **attributes: Any) -> list[ir.Value]:
        """A node with several outputs."""
        values = [self._value(like.name, like.kind, like.shape) for like in likes]
        self._nodes.append(ir.node(op, inputs, attributes, outputs=values, name=f"node_{values[0].name}"))
        return values

    def reshape(self, x: ir.Value, like: Like) -> ir.Value:
        """`x` in another shape; of several reshapes in a row only the last is made."""
        source = self._sources.get(x, x)
        old = self.shape(source)
        target: list[Dim] = [
            0 if not isinstance(dim, int) and axis < len(old) and dim == old[axis] else dim
            for axis, dim in enumerate(like.shape)
        ]
        unknown = [axis for axis, dim in enumerate(target) if not isinstance(dim, int)]
        # Of several the one is inferred that no graph input has.
        inferred = unknown if len(unknown) == 1 else [axis for axis in unknown if target[axis] not in self._places]
        if len(inferred) > 1:
            raise GarExportError(f"{like.name}: a reshape to {like.shape} leaves several sizes open")
        for axis in inferred:
            target[axis] = -1
        value = self.node("Reshape", [source, self.vector(target)], like)
        self._sources[value] = source
        return value

    def vector(self, dims: Sequence[Dim]) -> ir.Value:
        """Dimensions as int64 [N]."""
        numbers = [dim for dim in dims if isinstance(dim, int)]
        if len(numbers) == len(dims):
            return self.ints(*numbers)
        parts = [self.ints(dim) if isinstance(dim, int) else self._reading(dim) for dim in dims]
        return self.node("Concat", parts, Like("dims", ir.DataType.INT64, (len(parts),)), axis=0)

    def scalar(self, dim: Dim) -> ir.Value:
        """A dimension as int64 []."""
        if isinstance(dim, int):
            return self.constant(np.array(dim, np.int64))
        return self.node("Squeeze", [self._reading(dim)], Like("size", ir.DataType.INT64, ()))

    def graph(self, name: str, outputs: Mapping[str, ir.Value]) -> ir.Graph:
        """The graph of what `outputs` need."""
        taken = set(self._inputs)
        for called, value in outputs.items():
            if value in taken:
                raise GarExportError(f"{called}: is an input, or another output too; nothing is written for that")
            taken.add(value)
            value.name = called
        needed, nodes = set(outputs.values()), []
        for node in reversed(self._nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(value for value in node.inputs if value is not None)
                nodes.append(node)
            else:  # or it would go on being a user of what it reads
                for place in range(len(node.inputs)):
                    node.replace_input_with(place, None)
        return ir.Graph(
            self._inputs,
            list(outputs.values()),
            nodes=reversed(nodes),
            initializers=[value for value in self._initializers if value in needed],
            opset_imports={"": self.opset},
            name=name,
        )

    def _reading(self, dim: Dim) -> ir.Value:
        """A dimension int64 [1], read from the graph input that has it."""
        if dim not in self._places:
            raise GarExportError(f"{dim}: no axis of an input has this size, so no graph can read it")
        if dim not in self._read:
            source, axis = self._places[dim]
            like = Like(f"{self._names[dim]}_size", ir.DataType.INT64, (1,))
            self._read[dim] = self.node("Shape", [source], like, start=axis, end=axis + 1)
        return self._read[dim]

    def _value(self, name: str, kind: ir.DataType, shape: Shape) -> ir.Value:
        self._taken[name] += 1
        if self._taken[name] > 1:
            name = f"{name}.{self._taken[name]}"
        called = [dim if isinstance(dim, int) else self._called(dim) for dim in shape]
        value = ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(called))
        self._shapes[value] = shape
        return value

    def _called(self, dim: sympy.Expr) -> str:
        """An expression in the dimensions' names."""
        names = {symbol: sympy.Symbol(self._names.get(symbol, symbol.name)) for symbol in dim.free_symbols}
        return self._names.get(dim, str(dim.subs(names)))
