# ruff: noqa: N802 - names are TensorRT's own
"""TensorRT, faked: it parses, plans, serialises and runs, and its kernels are ONNX Runtime on the host.

Stands in for the module `tensorrt`, over a `FakeCuda`. A broken rule of TensorRT's documentation raises `Violation`:

- parsing: a KV cache has a static capacity; a node without a body needs its plugin, and a plugin that is known takes
  the place of a body (from 10.7 on, from 10.15 on where the node names the plugin's namespace)
- building: every input that varies has a range in every profile; shape inputs have values
- a context's profile is chosen before shapes are set, and an input's shape lies inside it
- a context works in device memory that it was given, aligned and of the engine's size at least, still there whenever a
  kernel runs; nothing else may rely on what is in it
- TensorRT-RTX compiles kernels at a context's first run, unless the runtime cache that it was made with has them
- enqueueing: every tensor has an address of live device memory (or, for shape inputs, of host memory), aligned, large
  enough; a cache's output has its input's address; one stream, that is not the default one
- write_index + length ≤ capacity, when the kernel runs
- capturing: the context was enqueued since its shapes or addresses changed, and reads nothing on the host
- deserialising: an engine of another version or device, or whose plugin is in a library that is not loaded, is refused
  (with None and a logged error, as TensorRT does)
"""

from __future__ import annotations

import ctypes
import hashlib
import pickle
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fake_cuda import ALIGNMENT, FakeCuda, Kind, Violation

SCATTER, REPLAY = "TensorScatter", "RoiReplay"
AHEAD_OF_TIME = "ahead of time"
WRITE_INDEX, EMBEDS = "write_index", "inputs_embeds"
_DTYPES = {1: np.float32, 7: np.int64, 9: np.bool_, 10: np.float16}  # by onnx.TensorProto

Shape = tuple[int, ...]


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class ILogger:
    Severity = Severity

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    pass


class TensorLocation(IntEnum):
    DEVICE = 0
    HOST = 1


class CudaGraphStrategy(IntEnum):
    """How TensorRT-RTX captures by itself."""

    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class ExecutionContextAllocationStrategy(IntEnum):
    """Who allocates what a context works in."""

    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class FakeRuntimeCache:
    """TensorRT-RTX's compiled kernels: of which model and profile."""

    def __init__(self, module: FakeTensorRt) -> None:
        self._module = module
        self.kernels: set[tuple[str, int]] = set()

    def serialize(self) -> bytes:
        return pickle.dumps((self._module.__version__, self._module.device, sorted(self.kernels)))

    def deserialize(self, blob: bytes) -> bool:
        try:
            version, device, kernels = pickle.loads(blob)
        except Exception:
            return False
        if (version, device) != (self._module.__version__, self._module.device):
            return False
        self.kernels |= set(kernels)
        return True


class FakeRuntimeConfig:
    """How TensorRT-RTX makes a context; read when it does."""

    def __init__(self, module: FakeTensorRt) -> None:
        self._module = module
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.allocation = ExecutionContextAllocationStrategy.STATIC
        self.cache: FakeRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> FakeRuntimeCache:
        return FakeRuntimeCache(self._module)

    def set_runtime_cache(self, cache: FakeRuntimeCache) -> bool:
        self.cache = cache
        return True


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


class FakeConfig:
    def __init__(self, module: FakeTensorRt) -> None:
        self.profiles: list[FakeProfile] = []
        self.progress_monitor: Any = None
        self.limits: dict[str, int] = {}
        self.capability: Any = None
        self.num_compute_capabilities = 0
        self.timings: FakeTimings | None = None
        self.module = module
        module.configs.append(self)

    def add_optimization_profile(self, profile: FakeProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits[pool] = size

    def create_timing_cache(self, content: bytes) -> FakeTimings:
        if self.module.is_rtx:
            raise Violation("TensorRT-RTX has no timing cache")
        return FakeTimings(bytes(content))

    def set_timing_cache(self, cache: FakeTimings, ignore_mismatch: bool) -> bool:
        if cache.content not in (b"", b"timings"):
            return False  # of another device
        self.timings = cache
        return True

    def get_timing_cache(self) -> FakeTimings | None:
        return self.timings


@dataclass
class FakeTimings:
    content: bytes

    def serialize(self) -> bytes:
        return b"timings"


class FakeNetwork:
    model: onnx.ModelProto
    source: Path
    plugin = False

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, index: int) -> SimpleNamespace:
        value = self.model.graph.input[index]
        return SimpleNamespace(
            name=value.name,
            shape=tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in _dims(value)),
            is_shape_tensor=value.name in shape_inputs(self.model, self.plugin),
        )


class FakeParser:
    def __init__(self, module: FakeTensorRt, network: FakeNetwork, logger: ILogger) -> None:
        self._module = module
        self._network = network
        self._errors: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(desc=lambda: self._errors[index])

    def parse(self, content: bytes, path: str) -> bool:
        model = onnx.load_model_from_string(content)
        inputs = {value.name: value for value in model.graph.input}
        bodies = {function.name for function in model.functions}
        for node in model.graph.node:
            if node.op_type == SCATTER and not _dims(inputs[node.input[0]])[2].HasField("dim_value"):
                self._errors.append("The KV cache tensor must have a static sequence length dimension")
            if node.op_type == REPLAY and (REPLAY not in bodies or self._plugin_wins(node)):
                self._network.plugin = True
                if not self._module.registry.creators:
                    self._errors.append(f"no plugin {REPLAY}")
        self._network.model, self._network.source = model, Path(path)
        return not self._errors

    def _plugin_wins(self, node: onnx.NodeProto) -> bool:
        """Whether a plugin that is known is preferred to the node's body."""
        major, minor = (int(number) for number in self._module.__version__.split(".")[:2])
        named = any(attribute.name == "plugin_namespace" and attribute.s == b"gar" for attribute in node.attribute)
        known = not self._module.is_rtx and bool(self._module.registry.creators)
        return known and (named if (major, minor) >= (10, 15) else (major, minor) >= (10, 7))


class FakeBuilder:
    def __init__(self, module: FakeTensorRt, logger: ILogger) -> None:
        self._module = module
        self._logger = logger

    def create_network(self, flags: int) -> FakeNetwork:
        if flags != 1 << self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED:
            raise Violation("the network is not strongly typed")
        return FakeNetwork()

    def create_builder_config(self) -> FakeConfig:
        return FakeConfig(self._module)

    def create_optimization_profile(self) -> FakeProfile:
        return FakeProfile()

    def build_serialized_network(self, network: FakeNetwork, config: FakeConfig) -> bytes | None:
        if self._module.build_error is not None:
            self._logger.log(Severity.ERROR, self._module.build_error)
            return None
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        going = all(monitor.step_complete("Building engine", step) for step in range(2))
        monitor.phase_finish("Building engine")
        if not going:
            return None
        for profile in config.profiles:
            _check_profile(network, profile)
        plan = Plan(
            network.model.SerializeToString(), str(network.source), config.profiles, self._module.__version__,
            self._module.device, network.plugin, network.plugin and self._module.registry.creators == [AHEAD_OF_TIME],
        )  # fmt: skip
        return pickle.dumps(plan)


class FakeRuntime:
    def __init__(self, module: FakeTensorRt, logger: ILogger) -> None:
        self._module = module
        self._logger = logger

    def deserialize_cuda_engine(self, content: Any) -> FakeEngine | None:
        try:
            plan = pickle.loads(bytes(content))
        except Exception:
            self._logger.log(Severity.ERROR, "Magic tag does not match")
            return None
        if (plan.version, plan.device) != (self._module.__version__, self._module.device):
            self._logger.log(Severity.ERROR, "The engine plan file is not compatible with this version of TensorRT")
            return None
        if plan.plugin and not plan.kernel and not self._module.registry.creators:
            self._logger.log(Severity.ERROR, f"getCreator could not find {REPLAY}")
            return None
        engine = FakeEngine(self._module, plan)
        self._module.engines.append(engine)
        return engine


class FakeEngine:
    def __init__(self, module: FakeTensorRt, plan: Plan) -> None:
        self.module = module
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
        dims = _dims(self.engine.inputs[name])
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
            if name not in self.shapes and any(not dim.HasField("dim_value") for dim in _dims(value)):
                raise Violation(f"the shape of {name} is not set")
            shapes[name] = self.shapes.get(name) or tuple(dim.dim_value for dim in _dims(value))
            sizes |= {dim.dim_param: size for dim, size in zip(_dims(value), shapes[name], strict=True)}
        for name, value in self.engine.outputs.items():
            dims = _dims(value)
            shapes[name] = tuple(dim.dim_value if dim.HasField("dim_value") else sizes[dim.dim_param] for dim in dims)
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
        memory.check(*scratch, Kind.DEVICE, "scratch memory, when the kernel runs")
        ctypes.memset(scratch[0], 0xA5, scratch[1])
        for name, shape in shapes.items():
            if name not in host:
                size = int(np.prod(shape)) * self._dtype(name).itemsize
                memory.check(addresses[name], size, Kind.DEVICE, f"{name}, when the kernel runs")
                arrays[name] = _array(addresses[name], shape, self._dtype(name))
        if self.engine.aliases:
            capacity = shapes[next(iter(self.engine.aliases.values()))][2]
            begin, length = int(arrays[WRITE_INDEX][0]), shapes[EMBEDS][1]
            if not 0 <= begin <= capacity - length:
                raise Violation(f"write_index {begin} and {length} positions leave the cache of {capacity}")
        binding = self.engine.session.io_binding()
        for name, array in arrays.items():
            bind = binding.bind_input if name in self.engine.inputs else binding.bind_output
            bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self.engine.session.run_with_iobinding(binding)

    def _dtype(self, name: str) -> np.dtype[Any]:
        value = self.engine.inputs.get(name) or self.engine.outputs[name]
        return np.dtype(_DTYPES[value.type.tensor_type.elem_type])


class FakeRegistry:
    """Plugin libraries: a file that begins with `plugin` is one."""

    def __init__(self) -> None:
        self.creators: list[str] = []

    def get_creator(self, name: str, version: str, namespace: str) -> object | None:
        return object() if (name, version, namespace) == (REPLAY, "1", "gar") and self.creators else None

    def load_library(self, path: str) -> object | None:
        if self.creators:
            raise Violation("the plugin library is loaded twice")
        if Path(path).read_bytes().startswith(b"plugin"):
            self.creators.append(path)
        return object()


class FakePlugins(ModuleType):
    """The module `tensorrt.plugin`: a plugin becomes known to the parser when its output is described.

    What TensorRT makes of the description and of the kernel is NVIDIA's own code, in `tests/test_replay_plugin.py`.
    """

    TensorDesc = SymInt32 = SymIntExprs = KernelLaunchParams = SimpleNamespace

    def __init__(self, registry: FakeRegistry) -> None:
        super().__init__("tensorrt.plugin")
        self.registry = registry
        self.op = SimpleNamespace()

    def register(self, name: str) -> Any:
        namespace, short = name.split("::")
        setattr(self.op, namespace, SimpleNamespace(**{short: name}))
        self.registry.creators.append(AHEAD_OF_TIME)
        return lambda described: described

    def aot_impl(self, name: str) -> Any:
        if not self.registry.creators:
            raise Violation(f"{name} is implemented before it is registered")
        return lambda implemented: implemented


class FakeTensorRt(ModuleType):
    """The module. `build_error` makes every build fail; `configs` and `engines` are what was made, in order; `compiled`
    counts kernels that TensorRT-RTX compiled while running.

    Under the name `tensorrt_rtx` it is that: with a runtime configuration, without plugins and timing caches.
    """

    CudaGraphStrategy = CudaGraphStrategy
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    ILogger = ILogger
    IProgressMonitor = IProgressMonitor
    TensorLocation = TensorLocation
    float32, float16, bfloat16 = "float32", "float16", "bfloat16"
    NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 0})
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")

    def __init__(self, cuda: FakeCuda, name: str = "tensorrt", version: str = "10.15.1.29") -> None:
        super().__init__(name)
        self.is_rtx = name == "tensorrt_rtx"
        self.__version__ = version
        self.cuda = cuda
        self.registry = FakeRegistry()
        self.build_error: str | None = None
        self.configs: list[FakeConfig] = []
        self.engines: list[FakeEngine] = []
        self.compiled = 0

    @property
    def device(self) -> tuple[str, tuple[int, int]]:
        return self.cuda.device_name, self.cuda.capability

    def Builder(self, logger: ILogger) -> FakeBuilder:
        return FakeBuilder(self, logger)

    def OnnxParser(self, network: FakeNetwork, logger: ILogger) -> FakeParser:
        return FakeParser(self, network, logger)

    def Runtime(self, logger: ILogger) -> FakeRuntime:
        return FakeRuntime(self, logger)

    def get_plugin_registry(self) -> FakeRegistry:
        if self.is_rtx:
            raise Violation("TensorRT-RTX takes no plugins")
        return self.registry


def shape_inputs(model: onnx.ModelProto, plugin: bool) -> set[str]:
    """Inputs whose values decide shapes: in the replay's portable body, the grid."""
    if plugin or not model.functions:
        return set()
    return {value.name for value in model.graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.INT64}


def _check_profile(network: FakeNetwork, profile: FakeProfile) -> None:
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor and tensor.name not in profile.values:
            raise Violation(f"{tensor.name} has no values in a profile")
        if -1 in tensor.shape and tensor.name not in profile.shapes:
            raise Violation(f"{tensor.name} has no range in a profile")
        allowed = profile.shapes.get(tensor.name)
        if allowed and any(size not in (-1, least) for size, least in zip(tensor.shape, allowed.least, strict=True)):
            raise Violation(f"{tensor.name}: the profile contradicts {tensor.shape}")


def _dims(value: onnx.ValueInfoProto) -> Any:
    return value.type.tensor_type.shape.dim


def _array(address: int, shape: Shape, dtype: np.dtype[Any]) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)
