"""TensorRT's core as its Python plugins see it, without libnvinfer: types, symbolic sizes, registry, a builder's walk.

NVIDIA's own `tensorrt.plugin`, which is Python, runs on top of it: from the wheel `tensorrt-cu13-bindings`, whose
compiled half cannot be loaded without libnvinfer. Written from that package's use of the core, from the public
headers and from onnx-tensorrt's plugin importer; rules that a real TensorRT would enforce are assertions here.
"""

from __future__ import annotations

import enum
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from helpers.needs import from_dev

DataType = enum.Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4 FP4")
TensorFormat = enum.Enum("TensorFormat", "LINEAR CHW2 HWC8")
PluginFieldType = enum.Enum("PluginFieldType", "FLOAT16 FLOAT32 FLOAT64 INT8 INT16 INT32 CHAR INT64 UNKNOWN")
PluginArgType = enum.Enum("PluginArgType", "INT")
PluginArgDataType = enum.Enum("PluginArgDataType", "INT8 INT16 INT32")
TensorRTPhase = enum.Enum("TensorRTPhase", "BUILD RUNTIME")
QuickPluginCreationRequest = enum.Enum(
    "QuickPluginCreationRequest", "UNKNOWN PREFER_JIT PREFER_AOT STRICT_JIT STRICT_AOT"
)
DimensionOperation = enum.Enum("DimensionOperation", "SUM PROD MAX MIN SUB EQUAL LESS FLOOR_DIV CEIL_DIV")

_ARITHMETIC: dict[DimensionOperation, Callable[[int, int], int]] = {
    DimensionOperation.SUM: lambda a, b: a + b,
    DimensionOperation.PROD: lambda a, b: a * b,
    DimensionOperation.MAX: max,
    DimensionOperation.MIN: min,
    DimensionOperation.SUB: lambda a, b: a - b,
    DimensionOperation.FLOOR_DIV: lambda a, b: a // b,
    DimensionOperation.CEIL_DIV: lambda a, b: -(-a // b),
}


class IDimensionExpr:
    """A number, or one that is known when the engine runs: a function of the dynamic dimensions' sizes."""

    def __init__(self, value: Callable[[Mapping[str, int]], int], constant: bool) -> None:
        self.value, self._constant = value, constant

    def is_constant(self) -> bool:
        return self._constant

    def get_constant_value(self) -> int:
        assert self._constant, "the value of a dynamic dimension is not known at build time"
        return self.value({})


class IExprBuilder:
    """Makes expressions."""

    def constant(self, value: int) -> IDimensionExpr:
        assert isinstance(value, int), value
        return IDimensionExpr(lambda _: value, constant=True)

    def symbol(self, name: str) -> IDimensionExpr:
        return IDimensionExpr(lambda sizes: sizes[name], constant=False)

    def operation(self, op: DimensionOperation, a: IDimensionExpr, b: IDimensionExpr) -> IDimensionExpr:
        return IDimensionExpr(
            lambda sizes: _ARITHMETIC[op](a.value(sizes), b.value(sizes)), a.is_constant() and b.is_constant()
        )


class Dims(tuple[int, ...]):
    """Sizes; -1 is dynamic."""

    MAX_DIMS = 8


class DimsExprs(list[Any]):
    """Expressions of a tensor's sizes."""

    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


@dataclass
class PluginTensorDesc:
    """A tensor's type, layout and sizes."""

    type: Any = None
    format: Any = TensorFormat.LINEAR
    dims: Dims = field(default_factory=Dims)
    scale: float = 1.0


@dataclass
class DynamicPluginTensorDesc:
    """The same with the profile's bounds."""

    desc: PluginTensorDesc
    min: Dims
    opt: Dims
    max: Dims


@dataclass(frozen=True)
class PluginField:
    """A plugin's attribute."""

    name: str
    data: Any
    type: Any


class ISymExpr:
    """What a kernel argument or a launch size is made of: `type`, `dtype` and `expr`."""

    type: Any
    dtype: Any
    expr: Any


class Setter:
    """Takes launch parameters and extra arguments, as the compiled bindings do: int32 expressions only."""

    def __init__(self, sizes: tuple[str, ...] = ()) -> None:
        self._sizes, self.values, self.nbSymExprs = sizes, {}, 0

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_sizes", "values", "nbSymExprs"):
            super().__setattr__(name, value)
        else:
            assert name in self._sizes, name
            self.values[name] = _int32(value)

    def __setitem__(self, index: int, value: Any) -> None:
        assert 0 <= index < self.nbSymExprs
        self.values[index] = _int32(value)


def _int32(value: Any) -> IDimensionExpr:
    assert isinstance(value, ISymExpr), value
    assert (value.type, value.dtype) == (PluginArgType.INT, PluginArgDataType.INT32)
    assert isinstance(value.expr, IDimensionExpr), value.expr
    return value.expr


class Registry:
    """Plugin creators by name, version and namespace."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> bool:
        key = (creator.name, creator.plugin_version, namespace)
        assert key not in self.creators, f"{key} is registered twice"
        self.creators[key] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators.get((name, version, namespace))


class Interface:
    """Base of the plugin interfaces."""


class Logger:
    """Keeps quiet."""

    WARNING = 2

    def log(self, severity: int, message: str) -> None:
        pass


def bindings() -> Path:
    """Folder with NVIDIA's Python half, `plugin/`; skips the test where the wheel is not installed."""
    spec = importlib.util.find_spec("tensorrt_bindings")
    if spec is None or spec.origin is None:
        pytest.skip(from_dev("tensorrt-cu13-bindings, with NVIDIA's tensorrt.plugin,"))
    return Path(spec.origin).parent


@contextmanager
def tensorrt(plugin_sources: Path | None, version: str = "11.4.0") -> Iterator[ModuleType]:
    """`import tensorrt` gives the stand-in, and `tensorrt.plugin` NVIDIA's code from `plugin_sources`, if any."""
    module = ModuleType("tensorrt")
    registry = Registry()
    names = [
        "DataType", "TensorFormat", "PluginFieldType", "PluginArgType", "PluginArgDataType", "TensorRTPhase",
        "QuickPluginCreationRequest", "DimensionOperation", "IDimensionExpr", "IExprBuilder", "Dims", "DimsExprs",
        "PluginTensorDesc", "DynamicPluginTensorDesc", "PluginField", "ISymExpr", "Logger",
    ]  # fmt: skip
    vars(module).update({name: globals()[name] for name in names})
    interfaces = [
        "IPluginV3", "IPluginV3QuickCore", "IPluginV3QuickBuild", "IPluginV3QuickAOTBuild", "IPluginV3QuickRuntime",
        "IPluginCreatorV3Quick", "ITensor",
    ]  # fmt: skip
    vars(module).update({name: type(name, (Interface,), {}) for name in interfaces})
    types = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "int32": "INT32", "int64": "INT64"}
    vars(module).update({short: DataType[name] for short, name in types.items()})
    vars(module).update(
        PluginFieldCollection=list,
        get_plugin_registry=lambda: registry,
        __version__=version,
        __path__=[] if plugin_sources is None else [str(plugin_sources)],
    )
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "tensorrt"}
    sys.modules["tensorrt"] = module
    try:
        yield module
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt"]:
            del sys.modules[name]
        sys.modules.update(before)


@dataclass(frozen=True)
class Tensor:
    """An input of the network: -1 is dynamic, its name tells which dynamic sizes are equal."""

    type: Any
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class Built:
    """What an engine keeps of an ahead-of-time plugin."""

    output_type: Any
    output: tuple[IDimensionExpr, ...]
    kernel: str
    code: bytes
    launch: dict[str, IDimensionExpr]
    extras: list[IDimensionExpr]

    def sizes(self, **dynamic: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], list[int]]:
        """Output shape, grid, block and extra arguments of one run."""
        number = {name: expr.value(dynamic) for name, expr in self.launch.items()}
        assert number["shared_mem"] == 0
        grid, block = (tuple(number[f"{kind}_{axis}"] for axis in "xyz") for kind in ("grid", "block"))
        return tuple(e.value(dynamic) for e in self.output), grid, block, [e.value(dynamic) for e in self.extras]


def build(trt: ModuleType, node: onnx.NodeProto, inputs: list[Tensor]) -> Built:
    """Parse one node and build it, in the order in which TensorRT calls a plugin."""
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    namespace = given["plugin_namespace"].decode()
    creator = trt.get_plugin_registry().get_creator(node.op_type, "1", namespace)
    assert creator is not None, "the parser finds no plugin of this name, version and namespace"
    # The importer passes the attributes that the creator declares, in its order and in the ONNX file's types.
    fields = [_field(known, given[known.name]) for known in creator.field_names if known.name in given]
    request = trt.QuickPluginCreationRequest.UNKNOWN
    plugin = creator.create_plugin(node.op_type, namespace, fields, TensorRTPhase.BUILD, request)
    output_types = plugin.get_output_data_types([tensor.type for tensor in inputs], [len(x.dims) for x in inputs])
    builder = IExprBuilder()
    exprs = [[builder.symbol(d) if isinstance(d, str) else builder.constant(d) for d in x.dims] for x in inputs]
    (output,) = plugin.get_output_shapes(exprs, [], builder)
    described = [_describe(tensor.type, tensor.dims) for tensor in inputs]
    described.append(_describe(output_types[0], ["?"] * len(output)))
    combinations = plugin.get_supported_format_combinations(described, len(inputs))
    assert [desc.type for desc in combinations] == [dynamic.desc.type for dynamic in described]
    assert all(desc.format is TensorFormat.LINEAR for desc in combinations)
    plugin.configure_plugin(described[:-1], described[-1:])
    assert plugin.get_valid_tactics() == []
    plugin = plugin.clone()
    plugin.set_tactic(0)
    launch = Setter((*(f"{kind}_{axis}" for kind in ("grid", "block") for axis in "xyz"), "shared_mem"))
    extras = Setter()
    plugin.get_launch_params(exprs, described, len(inputs), launch, extras, IExprBuilder())
    assert len(launch.values) == 7
    assert len(extras.values) == extras.nbSymExprs
    kernel, code = plugin.get_kernel([d.desc for d in described[:-1]], [described[-1].desc])
    return Built(output_types[0], tuple(output), kernel, code, launch.values, [*extras.values.values()])


def _field(declared: PluginField, value: Any) -> PluginField:
    """An INT of the file is int32 to a plugin, a FLOAT float32; a creator that says otherwise would be misled."""
    array = np.array([value], np.int32 if isinstance(value, int) else np.float32)
    assert declared.type is PluginFieldType[array.dtype.name.upper()], (declared.name, declared.type)
    return PluginField(declared.name, array, declared.type)


def _describe(kind: Any, dims: Any) -> DynamicPluginTensorDesc:
    sizes = Dims(-1 if isinstance(d, str) else d for d in dims)
    bounds = [Dims(bound if d == -1 else d for d in sizes) for bound in (2, 4, 8)]
    return DynamicPluginTensorDesc(PluginTensorDesc(kind, TensorFormat.LINEAR, sizes), *bounds)
