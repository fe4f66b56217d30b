"""TensorRT's engines, faked: what a serialised one holds, and contexts whose kernels are ONNX Runtime on the host.

A broken rule of TensorRT's documentation raises `Violation`:

- a context's profile is chosen before shapes are set, and an input's shape lies inside it
- a context works in device memory that it was given, aligned and of the engine's size at least, still there whenever a
  kernel runs; nothing else may rely on what is in it
- TensorRT-RTX compiles kernels at a context's first run, unless the runtime cache that it was made with has them
- enqueueing: every tensor has an address of live device memory (or, for shape inputs, of host memory), aligned, large
  enough; a cache's output has its input's address; one stream, that is not the default one
- write_index + length ≤ capacity, when the kernel runs
- capturing: the context was enqueued since its shapes or addresses changed, and reads nothing on the host
"""

from __future__ import annotations

import ctypes
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from fakes.cuda import ALIGNMENT, Kind, Violation
from fakes.runtime_config import ExecutionContextAllocationStrategy, FakeRuntimeConfig

if TYPE_CHECKING:
    from fakes.tensorrt import FakeTensorRt
    from fakes.tensorrt_memory import FakeMemory

SCATTER, REPLAY = "TensorScatter", "RoiReplay"
WRITE_INDEX, EMBEDS = "write_index", "inputs_embeds"
_DTYPES = {1: np.float32, 2: np.uint8, 7: np.int64, 9: np.bool_, 10: np.float16}  # by onnx.TensorProto

Shape = tuple[int, ...]


class TensorLocation(IntEnum):
    DEVICE = 0
    HOST = 1


@dataclass
class Range:
    """Least, usual and most of a shape, or of a shape input's values."""

    least: Shape
    usual: Shape
    most: Shape

    def __post_init__(self) -> None:
        if not all(a <= b <= c for a, b, c in zip(self.least, self.usual, self.most, strict=True)):
            raise Violation(f"a profile's shapes are out of order: {self.least}, {self.usual}, {self.most}")

    def holds(self, values: Shape) -> bool:
        return len(values) == len(self.least) and all(
            low <= value <= high for low, value, high in zip(self.least, values, self.most, strict=True)
        )


@dataclass
class FakeProfile:
    shapes: dict[str, Range] = field(default_factory=dict)
    values: dict[str, Range] = field(default_factory=dict)

    def set_shape(self, name: str, least: list[int], usual: list[int], most: list[int]) -> None:
        self.shapes[name] = Range(tuple(least), tuple(usual), tuple(most))

    def set_shape_input(self, name: str, least: list[int], usual: list[int], most: list[int]) -> None:
        self.values[name] = Range(tuple(least), tuple(usual), tuple(most))


@dataclass
class Plan:
    """What a serialised engine holds. plugin: the replay runs as a plugin. kernel: and the engine carries it."""

    model: bytes
    source: str
    profiles: list[FakeProfile]
    version: str
    device: tuple[str, tuple[int, int]]
    plugin: bool
    kernel: bool = False


class FakeEngine:
    def __init__(self, module: FakeTensorRt, plan: Plan, weights: FakeMemory) -> None:
        self.module = module
        self.weights = weights
        self.plan = plan
        # A plugin's kernel is beyond us: the file's own body stands in for it.
        model = onnx.load(plan.source, load_external_data=False) if plan.plugin else None
        self.model = model or onnx.load_model_from_string(plan.model)
        self.inputs = {value.name: value for value in self.model.graph.input}
        self.outputs = {value.name: value for value in self.model.graph.output}
        self.aliases = {node.output[0]: node.input[0] for node in self.model.graph.node if node.op_type == SCATTER}
        self.contexts: list[FakeContext] = []
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        folder = str(Path(plan.source).parent)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        self.session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def get_tensor_location(self, name: str) -> TensorLocation:
        host = name in shape_inputs(self.model, self.plan.plugin)
        return TensorLocation.HOST if host else TensorLocation.DEVICE

    @property
    def device_memory_size_v2(self) -> int:
        """Bytes that a context works in; here the more, the more nodes there are."""
        return len(self.model.graph.node) * ALIGNMENT

    def create_runtime_config(self) -> FakeRuntimeConfig:
        if not self.module.is_rtx:
            raise Violation("only TensorRT-RTX has runtime configurations here")
        return FakeRuntimeConfig(self.module)

    def create_execution_context(self, how: ExecutionContextAllocationStrategy | FakeRuntimeConfig) -> FakeContext:
        config = how if isinstance(how, FakeRuntimeConfig) else FakeRuntimeConfig(self.module)
        if config is not how:
            config.allocation = how
        if config.allocation is not ExecutionContextAllocationStrategy.USER_MANAGED:
            raise Violation("the context allocates memory of its own")
        self.contexts.append(FakeContext(self, config))
        return self.contexts[-1]


class FakeContext:
    def __init__(self, engine: FakeEngine, config: FakeRuntimeConfig) -> None:
        self.engine = engine
        self.strategy = config.cuda_graph_strategy
        self.cache = config.cache
        self.compiled = False
        self.scratch: tuple[int, int] | None = None  # address, size
        self.profile: FakeProfile | None = None
        self.profile_index = -1
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}
        self.stream: int | None = None
        self.settled = False  # enqueued since the last change

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.engine.module.cuda.stream(stream)
        self.stream = stream
        self.profile, self.profile_index = self.engine.plan.profiles[index], index
        self.shapes, self.settled = {}, False
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        if memory % ALIGNMENT or size < self.engine.device_memory_size_v2:
            raise Violation(f"{size} bytes at {memory} for a context of {self.engine.device_memory_size_v2}")
        self.engine.module.cuda.memory.check(memory, size, Kind.DEVICE, "scratch memory")
        self.scratch, self.settled = (memory, size), False

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        if name not in self.engine.inputs:
            raise Violation(f"{name} is not an input")
        if self.profile is None:
            raise Violation(f"the shape of {name} is set before the profile")
        dims = dims_of(self.engine.inputs[name])
        allowed = self.profile.shapes.get(name) or Range(*(tuple(dim.dim_value for dim in dims),) * 3)
        if not allowed.holds(tuple(shape)):
            raise Violation(f"{name}: {tuple(shape)} is outside the profile, {allowed.least} to {allowed.most}")
        self.shapes[name] = tuple(shape)
        self.settled = False
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in self.engine.inputs and name not in self.engine.outputs:
            raise Violation(f"the engine has no tensor {name}")
        self.addresses[name] = address
        self.settled = False
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Check everything that TensorRT reads now, and queue the rest."""
        cuda = self.engine.module.cuda
        queue = cuda.stream(stream)
        if self.profile is None:
            raise Violation("enqueued without a profile")
        if self.scratch is None:
            raise Violation("enqueued without memory to work in")
        if self.stream != stream:
            raise Violation("enqueued on another stream than the one that the profile was chosen on")
        if queue.recording is not None and self.engine.module.is_rtx:
            raise Violation("TensorRT-RTX is captured by itself, once its kernels are final")
        if queue.recording is not None and not self.settled:
            raise Violation("captured before it was enqueued once with these shapes and addresses")
        shapes = self._resolve()
        host: dict[str, np.ndarray] = {}
        for name, shape in shapes.items():
            if self._check_tensor(name, shape):
                host[name] = self._host_values(name, shape)
        if queue.recording is not None and host:
            raise Violation("captured although it reads shapes on the host")
        for output, source in self.engine.aliases.items():
            if self.addresses[output] != self.addresses[source]:
                raise Violation(f"{output} does not share the address of {source}")
        addresses, scratch = dict(self.addresses), self.scratch
        self._compile()
        queue.put(lambda: self._compute(shapes, addresses, host, scratch))
        self.settled = True
        cuda.calls["enqueue"] += 1
        return True

    def _compile(self) -> None:
        """As TensorRT-RTX does at the first run."""
        key = (hashlib.sha256(self.engine.plan.model).hexdigest(), self.profile_index)
        if self.engine.module.is_rtx and not self.compiled and (self.cache is None or key not in self.cache.kernels):
            self.engine.module.compiled += 1
            if self.cache is not None:
                self.cache.kernels.add(key)
        self.compiled = True

    def _resolve(self) -> dict[str, Shape]:
        """Every tensor's shape."""
        shapes: dict[str, Shape] = {}
        sizes: dict[str, int] = {}
        for name, value in self.engine.inputs.items():
            if name not in self.shapes and any(not dim.HasField("dim_value") for dim in dims_of(value)):
                raise Violation(f"the shape of {name} is not set")
            shapes[name] = self.shapes.get(name) or tuple(dim.dim_value for dim in dims_of(value))
            sizes |= {dim.dim_param: size for dim, size in zip(dims_of(value), shapes[name], strict=True)}
        for name, value in self.engine.outputs.items():
            shapes[name] = tuple(_size(dim, sizes) for dim in dims_of(value))
        return shapes

    def _check_tensor(self, name: str, shape: Shape) -> bool:
        """Whether the tensor is read on the host."""
        address = self.addresses.get(name)
        if not address:
            raise Violation(f"the address of {name} is not set")
        if address % ALIGNMENT:
            raise Violation(f"the address of {name} is not a multiple of {ALIGNMENT}")
        memory, size = self.engine.module.cuda.memory, int(np.prod(shape)) * self._dtype(name).itemsize
        if self.engine.get_tensor_location(name) == TensorLocation.DEVICE:
            memory.check(address, size, Kind.DEVICE, name)
            return False
        found = memory.find(address)
        if found is not None and found.kind is Kind.DEVICE:
            raise Violation(f"{name} is read by the host and lies on the device")
        return True

    def _host_values(self, name: str, shape: Shape) -> np.ndarray:
        values = _array(self.addresses[name], shape, self._dtype(name)).copy()
        assert self.profile is not None
        if name not in self.profile.values or not self.profile.values[name].holds(tuple(values.tolist())):
            raise Violation(f"{name}: {values.tolist()} is outside the profile")
        return values

    def _compute(
        self,
        shapes: dict[str, Shape],
        addresses: dict[str, int],
        host: dict[str, np.ndarray],
        scratch: tuple[int, int],
    ) -> None:
        memory, arrays = self.engine.module.cuda.memory, dict(host)
        memory.check(
            self.engine.weights.address, self.engine.weights.size, Kind.DEVICE, "weights, when the kernel runs"
        )
        memory.check(*scratch, Kind.DEVICE, "scratch memory, when the kernel runs")
        ctypes.memset(scratch[0], 0xA5, scratch[1])
        for name, shape in shapes.items():
            if name not in host:
                size = int(np.prod(shape)) * self._dtype(name).itemsize
                memory.check(addresses[name], size, Kind.DEVICE, f"{name}, when the kernel runs")
                arrays[name] = _array(addresses[name], shape, self._dtype(name))
        if self.engine.aliases:
            capacity = shapes[next(iter(self.engine.aliases.values()))][2]
            begins, length = arrays[WRITE_INDEX], shapes[EMBEDS][1]
            if begins.min() < 0 or begins.max() > capacity - length:
                raise Violation(f"write_index {begins} and {length} positions leave the cache of {capacity}")
        binding = self.engine.session.io_binding()
        for name, array in arrays.items():
            bind = binding.bind_input if name in self.engine.inputs else binding.bind_output
            bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self.engine.session.run_with_iobinding(binding)

    def _dtype(self, name: str) -> np.dtype[Any]:
        value = self.engine.inputs.get(name) or self.engine.outputs[name]
        return np.dtype(_DTYPES[value.type.tensor_type.elem_type])


def shape_inputs(model: onnx.ModelProto, plugin: bool) -> set[str]:
    """Inputs whose values decide shapes: in the replay's portable body, the grid."""
    if plugin or not model.functions:
        return set()
    return {value.name for value in model.graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.INT64}


def dims_of(value: onnx.ValueInfoProto) -> Any:
    """A graph value's dimensions, as ONNX writes them."""
    return value.type.tensor_type.shape.dim


def _size(dim: Any, sizes: Mapping[str, int]) -> int:
    """A dimension of an output: a number, a name, or a product of names, of which a fixed one, the batch, is 1."""
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return math.prod(sizes.get(factor, 1) for factor in dim.dim_param.split("*"))


def _array(address: int, shape: Shape, dtype: np.dtype[Any]) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)
