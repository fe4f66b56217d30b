"""A graph and its plan to a serialised engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gar_edge.runtime.bundle.manifest import Graph
from gar_edge.runtime.engines.build_progress import Watch
from gar_edge.runtime.engines.cuda.device_memory import DeviceMemory, advice
from gar_edge.runtime.engines.tensorrt.allocator import allocator
from gar_edge.runtime.engines.tensorrt.installed import Library
from gar_edge.runtime.engines.tensorrt.plan import EnginePlan, Profile
from gar_edge.runtime.engines.tensorrt.progress import BuildWatch, monitor
from gar_edge.runtime.errors import GarBackendError, GarBundleError
from gar_edge.runtime.files.atomic import write_whole
from gar_edge.runtime.files.onnx_file import fix_dimensions, strip_functions


@dataclass(frozen=True)
class Target:
    """What an engine is built for and with.

    compute_capability: of a GPU that need not be there (TensorRT-RTX only); None for this machine's.
    workspace: most bytes of scratch memory that a kernel may take; None for TensorRT's own limit.
    timing_cache: file of kernel timings to read and to write again, or None.
    memory: where kernels are tried that TensorRT chooses from; None where none is tried.
    """

    compute_capability: str | None = None
    workspace: int | None = None
    timing_cache: Path | None = None
    memory: DeviceMemory | None = None


def build_engine(
    library: Library, name: str, file: Path, graph: Graph, plan: EnginePlan, plugin: bool, target: Target, watch: Watch
) -> Any:
    """Build one graph's engine; a buffer of bytes. `watch` hears of every step and may stop the build by raising.

    plugin: a replay plugin is registered and takes the place of the function's body.
    `GarBackendError` carries TensorRT's own reason where it refuses.
    """
    trt = library.trt
    builder = trt.Builder(library.logger)
    memory = target.memory
    if memory is not None:
        memory.refused = 0  # to the engine before it
        builder.gpu_allocator = allocator(trt, memory)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse(_model(file, plan, plugin), str(file)):
        reason = parser.get_error(0).desc() if parser.num_errors else library.reason()
        raise GarBackendError(f"{file}: {library.title} cannot read the graph ({' '.join(reason.split())})")
    config = builder.create_builder_config()
    for profile in plan.profiles:
        config.add_optimization_profile(_profile(library, builder, network, graph, profile))
    _configure(library, config, target)
    build_watch = BuildWatch(name, watch)
    config.progress_monitor = monitor(trt, build_watch)
    engine = builder.build_serialized_network(network, config)
    if target.timing_cache is not None:  # of a build that was stopped or refused too: the next one begins with it
        _write_timings(config, target.timing_cache)
    if build_watch.failure is not None:
        raise build_watch.failure
    if engine is None:
        told = advice(memory.cuda, memory.refused) if memory is not None and memory.refused else ""
        raise GarBackendError(f"{file}: {library.title} cannot build the engine ({library.reason()}){told}")
    return engine


def _model(file: Path, plan: EnginePlan, plugin: bool) -> bytes:
    """The graph's bytes as TensorRT shall see them; weights stay in the files beside it."""
    try:
        model = fix_dimensions(file.read_bytes(), plan.fixed)
        # TensorRT up to 10.6 prefers a function to a plugin of its name, newer ones do not: without it all agree.
        return strip_functions(model) if plugin else model
    except ValueError as error:
        raise GarBundleError(f"{file}: {error}; export the bundle again") from None


def _profile(library: Library, builder: Any, network: Any, graph: Graph, profile: Profile) -> Any:
    made = builder.create_optimization_profile()
    ports = {port.name: port for port in graph.inputs}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            made.set_shape_input(tensor.name, *(list(values) for values in profile.values[tensor.name]))
        elif -1 in tuple(tensor.shape):
            dims = zip(tensor.shape, ports[tensor.name].shape, strict=True)
            ranges = [profile.dims[str(name)] if size == -1 else (size,) * 3 for size, name in dims]
            made.set_shape(tensor.name, *([range[kind] for range in ranges] for kind in range(3)))
    return made


def _configure(library: Library, config: Any, target: Target) -> None:
    trt = library.trt
    if target.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, target.workspace)
    if target.compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(compute_capability(library, target.compute_capability), 0)
    if target.timing_cache is not None:
        known = target.timing_cache.read_bytes() if target.timing_cache.is_file() else b""
        if not config.set_timing_cache(config.create_timing_cache(known), False):
            config.set_timing_cache(config.create_timing_cache(b""), False)  # of another version or device


def compute_capability(library: Library, text: str) -> Any:
    """TensorRT-RTX's name for a compute capability such as "8.6"."""
    if not library.is_rtx:
        raise GarBackendError("TensorRT builds for the GPU that is there; --compute-capability is for tensorrt_rtx")
    known = library.trt.ComputeCapability.__members__
    name = "SM" + text.replace(".", "")
    if name not in known:
        choices = [f"{member[2:-1]}.{member[-1]}" for member in known if member.startswith("SM")]
        raise GarBackendError(f"{library.title} has no compute capability {text!r}; choose from {', '.join(choices)}")
    return known[name]


def _write_timings(config: Any, path: Path) -> None:
    cache = config.get_timing_cache()
    if cache is None:
        return
    write_whole(path, bytes(cache.serialize()))
