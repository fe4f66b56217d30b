"""An engine in use: bound to buffers, run on the one stream, repeated runs as a CUDA graph."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from gar_edge.runtime.bundle.manifest import Graph, Port
from gar_edge.runtime.engines.cuda.memory import ALIGNMENT, DeviceBuffer, Scratch, Stream, device_buffer
from gar_edge.runtime.engines.protocol import Array, Buffer, Run
from gar_edge.runtime.engines.tensorrt.installed import Library
from gar_edge.runtime.engines.tensorrt.plan import BATCH, EnginePlan, Profile
from gar_edge.runtime.engines.tensorrt.runtime_cache import RuntimeCache
from gar_edge.runtime.errors import GarBackendError

Value = DeviceBuffer | np.ndarray[Any, Any]  # arrays are on the host


@dataclass(frozen=True)
class Shared:
    """What the sessions of a back end have in common. kernels: TensorRT-RTX's only."""

    stream: Stream
    scratch: Scratch
    kernels: RuntimeCache | None = None


class TensorRtSession:
    """One engine with an execution context for each of its profiles, made when first needed."""

    def __init__(
        self, name: str, library: Library, engine: Any, graph: Graph, plan: EnginePlan, shared: Shared
    ) -> None:
        self.name = name
        self.tensorrt = library
        self.engine = engine
        self.shared = shared
        self.stream = shared.stream
        shared.scratch.reserve(int(engine.device_memory_size_v2))
        self._graph = graph
        self._plan = plan
        self._inputs = {port.name: port for port in graph.inputs}
        self._contexts: dict[int, Context] = {}
        host = library.trt.TensorLocation.HOST
        self._on_host = {name for name in self._inputs if engine.get_tensor_location(name) == host}

    def bind(self, inputs: Mapping[str, Buffer | Array], outputs: Mapping[str, Buffer]) -> Run:
        index = self._choose_profile(inputs)
        values: dict[str, Value] = {name: self._place(port, inputs[name]) for name, port in self._inputs.items()}
        for port in self._graph.outputs:
            values[port.name] = self._checked(port, device_buffer(outputs[port.name]))
        for output, source in self._graph.aliases.items():
            if _address(values[output]) != _address(values[source]):
                raise ValueError(f"{self.name}: {output} must share the memory of {source}")
        return TensorRtRun(self, self._context(index), self._inputs, values)

    def limit(self, name: str, axis: int) -> int | None:
        size = self._inputs[name].shape[axis]
        if isinstance(size, int):
            return size
        if size in self._plan.fixed:
            return self._plan.fixed[size]
        return max(profile.dims[size][-1] for profile in self._plan.profiles)

    def _choose_profile(self, inputs: Mapping[str, Buffer | Array]) -> int:
        """The tightest profile that allows the inputs' shapes, and the values of those that are shapes themselves."""
        fitting = [
            (self._room(profile), index)
            for index, profile in enumerate(self._plan.profiles)
            if all(self._allows(profile, port, inputs[name]) for name, port in self._inputs.items())
        ]
        if fitting:
            return min(fitting)[1]
        shapes = ", ".join(f"{name} {list(inputs[name].shape)}" for name in self._inputs if self._varies(name))
        most = ", ".join(f"{name} {size}" for name, size in self._most().items())
        raise GarBackendError(
            f"{self.name}: the engine was built for at most {most}, and was given {shapes}; "
            "gar-engine build --max-tiles or --capacity makes another"
        )

    def _allows(self, profile: Profile, port: Port, value: Buffer | Array) -> bool:
        if len(value.shape) != len(port.shape):
            return False
        for size, dim in zip(value.shape, port.shape, strict=True):
            if isinstance(dim, int) or dim in self._plan.fixed:
                if size != (dim if isinstance(dim, int) else self._plan.fixed[dim]):
                    return False
            elif not profile.dims[dim][0] <= size <= profile.dims[dim][-1]:
                return False
        if port.name not in profile.values or not isinstance(value, np.ndarray):
            return True
        least, _, most = profile.values[port.name]
        return bool(np.all(value >= least) and np.all(value <= most))

    def _room(self, profile: Profile) -> int:
        return int(np.prod([range[-1] for range in profile.dims.values()]))

    def _varies(self, name: str) -> bool:
        return any(isinstance(dim, str) and dim not in self._plan.fixed for dim in self._inputs[name].shape)

    def _most(self) -> dict[str, int]:
        profiles = self._plan.profiles
        return {dim: max(profile.dims[dim][-1] for profile in profiles) for dim in profiles[0].dims} | dict(
            self._plan.fixed
        )

    def _place(self, port: Port, value: Buffer | Array) -> Value:
        """An input where the engine reads it."""
        if not isinstance(value, np.ndarray):
            return self._checked(port, device_buffer(value))
        if value.dtype != np.dtype(port.dtype):
            raise ValueError(f"{self.name}: {port.name} is {value.dtype}, the engine takes {port.dtype}")
        if port.name in self._on_host:
            return _aligned(value)
        buffer = DeviceBuffer.new(self.stream, value.shape, value.dtype)
        buffer.write(value)
        return buffer

    def _checked(self, port: Port, buffer: DeviceBuffer) -> DeviceBuffer:
        if buffer.dtype != np.dtype(port.dtype):
            raise ValueError(f"{self.name}: {port.name} is {buffer.dtype}, the engine takes {port.dtype}")
        if port.name in self._on_host:
            raise ValueError(f"{self.name}: {port.name} is read by the host; give an array")
        if buffer.address % ALIGNMENT:
            raise GarBackendError(f"{self.name}: {port.name} does not begin at a multiple of {ALIGNMENT} bytes")
        return buffer

    def _context(self, index: int) -> Context:
        with self.stream.lock:
            if index not in self._contexts:
                ranges = self._plan.profiles[index].dims
                varying = {dim for dim, range in ranges.items() if range[0] != range[-1]}
                self._contexts[index] = Context(self, index, varying)
            return self._contexts[index]


class Context:
    """An execution context on one profile. bound: the run whose shapes and addresses it holds, while that lives."""

    def __init__(self, session: TensorRtSession, profile: int, varying: Set[str]) -> None:
        """varying: dimensions that the profile leaves open. Only what is run again and again is worth capturing."""
        library, stream = session.tensorrt, session.stream
        self.handle = _create_context(session, not varying)
        if self.handle is None or not self.handle.set_optimization_profile_async(profile, int(stream.handle)):
            raise GarBackendError(f"{session.name}: {library.title} cannot prepare the engine ({library.reason()})")
        self._scratch = session.shared.scratch.take()  # kept: the context knows only the address
        self.handle.set_device_memory(self._scratch.address, self._scratch.size)
        self.capturable = varying <= {BATCH} and not library.is_rtx  # a run's own shapes do not change
        self._kernels = session.shared.kernels
        self._bound: weakref.ref[TensorRtRun] | None = None

    @property
    def bound(self) -> TensorRtRun | None:
        return self._bound() if self._bound is not None else None

    @bound.setter
    def bound(self, run: TensorRtRun | None) -> None:
        self._bound = weakref.ref(run) if run is not None else None

    def keep_kernels(self) -> None:
        """Write what the first run compiled; later calls do nothing."""
        if self._kernels is not None:
            self._kernels.save()
            self._kernels = None


def _create_context(session: TensorRtSession, one_shape: bool) -> Any:
    """An execution context that works in memory of ours; None where TensorRT refuses."""
    trt, engine, kernels = session.tensorrt.trt, session.engine, session.shared.kernels
    ours = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if not session.tensorrt.is_rtx:
        return engine.create_execution_context(ours)
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(ours)
    if one_shape:
        # RTX swaps in kernels while it runs and knows when a graph may be captured: our own capture would keep the
        # first, slower ones.
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    if kernels is not None:
        kernels.attach(config)
    return engine.create_execution_context(config)


class TensorRtRun:
    """A session bound to its buffers.

    The first call queues the engine's kernels one by one. A second call in a row, with nothing else on its context in
    between, records them as a CUDA graph, and from then on each call queues that: it reads and writes the same
    addresses, so only their contents may change between calls.
    """

    def __init__(
        self, session: TensorRtSession, context: Context, inputs: Mapping[str, Port], values: Mapping[str, Value]
    ) -> None:
        self._session = session
        self._context = context
        self._inputs = inputs
        self._values = values  # keeps the memory behind the addresses
        self._launch: Callable[[], None] | None = None

    def __call__(self) -> None:
        with self._session.stream.lock:
            if self._launch is None and self._context.bound is self and self._context.capturable:
                self._capture()
            if self._launch is not None:
                self._launch()
                return
            if self._context.bound is not self:
                self._prepare()
            self._enqueue()
            self._context.keep_kernels()

    def _prepare(self) -> None:
        context = self._context.handle
        self._context.bound = None
        for name, value in self._values.items():
            accepted = name not in self._inputs or context.set_input_shape(name, tuple(value.shape))
            if not (accepted and context.set_tensor_address(name, _address(value))):
                raise self._error(f"refuses {name} of shape {list(value.shape)}")
        self._context.bound = self

    def _enqueue(self) -> None:
        if not self._context.handle.execute_async_v3(int(self._session.stream.handle)):
            raise self._error("failed")

    def _capture(self) -> None:
        try:
            self._launch = self._session.stream.capture(self._enqueue)
        except GarBackendError:
            self._context.capturable = False  # kernels one by one do the same, a little slower

    def _error(self, what: str) -> GarBackendError:
        library = self._session.tensorrt
        return GarBackendError(f"{self._session.name}: {library.title} {what} ({library.reason()})")


def _aligned(value: Array) -> Array:
    """A copy whose memory begins at a multiple of `ALIGNMENT`."""
    memory = np.empty(value.nbytes + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    copy = memory[begin : begin + value.nbytes].view(value.dtype).reshape(value.shape)
    copy[...] = value
    return copy


def _address(value: Value) -> int:
    return int(value.ctypes.data) if isinstance(value, np.ndarray) else value.address
