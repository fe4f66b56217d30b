# ruff: noqa: N802 - names are TensorRT's own
"""TensorRT, faked: it parses, plans, serialises and deserialises; its engines are in `fake_tensorrt_engine`.

Stands in for the module `tensorrt`, over a `FakeCuda`. A broken rule of TensorRT's documentation raises `Violation`:

- parsing: a KV cache has a static capacity; a node without a body needs its plugin, and a plugin that is known takes
  the place of a body (from 10.7 on, from 10.15 on where the node names the plugin's namespace)
- building: every input that varies has a range in every profile; shape inputs have values
- deserialising: an engine of another version or device, or whose plugin is in a library that is not loaded, is refused
  (with None and a logged error, as TensorRT does)
"""

from __future__ import annotations

import pickle
import weakref
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx
from fakes.cuda import FakeCuda, Violation
from fakes.runtime_config import CudaGraphStrategy, ExecutionContextAllocationStrategy
from fakes.tensorrt_engine import (
    REPLAY,
    SCATTER,
    FakeEngine,
    FakeProfile,
    Plan,
    TensorLocation,
    dims_of,
    shape_inputs,
)
from fakes.tensorrt_memory import FakeMemory, IGpuAsyncAllocator, weight_bytes

AHEAD_OF_TIME = "ahead of time"


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class ILogger:
    """Keeps what it is told. TensorRT's own is abstract."""

    Severity = Severity

    def __init__(self) -> None:
        self.messages: list[str] = []

    def log(self, severity: Severity, msg: str) -> None:
        self.messages.append(msg)


class IProgressMonitor:
    pass


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
            shape=tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims_of(value)),
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
            if node.op_type == SCATTER and not dims_of(inputs[node.input[0]])[2].HasField("dim_value"):
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
    gpu_allocator: Any = None

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
        size = weight_bytes(network.model, str(network.source))
        # Kernels are tried with the weights in place; TensorRT-RTX needs no device to build.
        if not self._module.is_rtx and not FakeMemory(self._module, self.gpu_allocator, size).address:
            self._logger.log(Severity.ERROR, f"Requested amount of GPU memory ({size} bytes) could not be allocated.")
            return None
        plan = Plan(
            network.model.SerializeToString(), str(network.source), config.profiles, self._module.__version__,
            self._module.device, network.plugin, network.plugin and self._module.registry.creators == [AHEAD_OF_TIME],
        )  # fmt: skip
        return pickle.dumps(plan)


class FakeRuntime:
    gpu_allocator: Any = None

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
        size = weight_bytes(onnx.load_model_from_string(plan.model), plan.source)
        weights = FakeMemory(self._module, self.gpu_allocator, size)
        if not weights.address:
            self._logger.log(Severity.ERROR, f"Requested amount of GPU memory ({size} bytes) could not be allocated.")
            return None
        engine = FakeEngine(self._module, plan, weights)
        self._module.deserialised.append(weakref.ref(engine))
        return engine


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
    """The module. `build_error` makes every build fail; `configs`: what was made, in order; `engines`: those in use;
    `compiled` counts kernels that TensorRT-RTX compiled while running.

    Under the name `tensorrt_rtx` it is that: with a runtime configuration, without plugins and timing caches.
    """

    CudaGraphStrategy = CudaGraphStrategy
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    IGpuAsyncAllocator = IGpuAsyncAllocator
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
        self.deserialised: list[weakref.ref[FakeEngine]] = []
        self.compiled = 0

    @property
    def engines(self) -> list[FakeEngine]:
        found = (reference() for reference in self.deserialised)
        return [engine for engine in found if engine is not None]

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
