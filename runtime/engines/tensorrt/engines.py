"""The engines of a bundle: found where they fit this machine, built where they are missing."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.engines.build_progress import Watch
from gar_edge.runtime.engines.cuda.api import Cuda, Device
from gar_edge.runtime.engines.cuda.device_memory import DeviceMemory
from gar_edge.runtime.engines.gpu import l4t_release
from gar_edge.runtime.engines.tensorrt.builder import Target, build_engine, compute_capability
from gar_edge.runtime.engines.tensorrt.installed import Library
from gar_edge.runtime.engines.tensorrt.plan import Limits, plan_of
from gar_edge.runtime.engines.tensorrt.roi_replay import Replay
from gar_edge.runtime.engines.tensorrt.store import EngineRecipe, EngineRecord, Machine, Store, misfit, writable
from gar_edge.runtime.errors import GarBackendError

REPLAY = "roi_replay"
GRAPHS = ("encoder", REPLAY, "decoder")
PRECISIONS = ("fp16", "int8", "int4", "fp8")  # that TensorRT can build
_FLOAT8 = (8, 9)  # the oldest compute capability with products of E4M3
_WORKSPACE_SHARE = 0.5  # of the free memory: weights and activations need the rest


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that is there. built: by this call, and not before."""

    record: EngineRecord
    file: Path
    built: bool


def here(library: Library, cuda: Cuda) -> Machine:
    """The machine this runs on. TensorRT-RTX's engines do not care which GPU it is, only for its compute capability."""
    device = cuda.device()
    return Machine(library.name, library.version, Device(device.compute_capability) if library.is_rtx else device)


def elsewhere(library: Library, capability: str) -> Machine:
    """A machine whose GPU is not here; `GarBackendError` where its engines cannot be built without it."""
    compute_capability(library, capability)
    return Machine(library.name, library.version, Device(capability))


def suited(bundle: Bundle, library: Library) -> Manifest:
    """The manifest with the graphs that this TensorRT reads; `GarBackendError` where the bundle has none for it."""
    manifest = bundle.manifest
    if manifest.precision not in PRECISIONS:
        raise GarBackendError(
            f"{bundle.folder}: the bundle is {manifest.precision} and TensorRT has no such kernel for the decoder's "
            "Attention; export with gar-export --fp16 (or --int8, --int4, --fp8)"
        )
    form = library.graph_form
    if form is None:
        return manifest
    if form not in manifest.engine_graphs:
        raise GarBackendError(
            f"{bundle.folder}: the decoder needs TensorRT 10.15 or newer, here is {library.title}, and the bundle has "
            f"no {form!r} decoder for older ones; export it again with --{form} (not --int4)"
        )
    return manifest.for_engine(form)


def build_engines(
    bundle: Bundle,
    library: Library,
    machine: Machine,
    limits: Limits,
    replay: Replay,
    rebuild: bool,
    cuda: Cuda | None,
    watch: Watch,
) -> list[BuiltEngine]:
    """The engines of a bundle for a machine, in the order of `GRAPHS`; those already there are kept unless `rebuild`.

    cuda: None where the machine is another one. `GarBackendError` where TensorRT refuses a graph, or has no such
    form of the replay.
    """
    manifest, store = suited(bundle, library), Store(bundle.folder)
    _check_float8(bundle, machine.device)
    replay.prepare(library)
    target = Target(
        compute_capability=machine.device.compute_capability if cuda is None else None,
        workspace=None if cuda is None else int(cuda.free_memory() * _WORKSPACE_SHARE),
        timing_cache=None if library.is_rtx else store.timing_cache(machine),
        memory=None if library.is_rtx or cuda is None else _memory(cuda),
    )
    engines = []
    for name in GRAPHS:
        recipe = _recipe(name, manifest, machine, limits, replay)
        record = None if rebuild else store.get(recipe)
        built = record is None
        if record is None:
            with writable(store.folder):  # before the long work
                record = _build(bundle, library, manifest, recipe, replay, target, store, watch)
        engines.append(BuiltEngine(record, store.engine_file(recipe), built))
    return engines


def find_engines(bundle: Bundle, library: Library, machine: Machine) -> dict[str, BuiltEngine]:
    """The newest engine of each graph that fits this machine, whatever sizes it was built for.

    Empty where there is no engine at all. `GarBackendError` where there are some, but one graph has none that fits:
    whoever copied a bundle here, or changed its TensorRT, should know before minutes go into building.
    """
    manifest, store = suited(bundle, library), Store(bundle.folder)
    records = [record for record in store.records() if record.recipe.engine == library.name]
    found: dict[str, BuiltEngine] = {}
    for name in GRAPHS:
        own = [record for record in records if record.recipe.graph == name]
        fitting = [record for record in own if misfit(record, manifest, machine) is None]
        if fitting:
            found[name] = BuiltEngine(fitting[0], store.engine_file(fitting[0].recipe), built=False)
        elif records:
            why = misfit(own[0], manifest, machine) if own else "there is none"
            raise GarBackendError(
                f"{store.folder}: no {name} engine for this machine: {why}; "
                f"gar-engine build {bundle.folder} --backend {library.name} makes one"
            )
    return found


def _memory(cuda: Cuda) -> DeviceMemory:
    """What a build allocates from; its streams are TensorRT's own, so all of the device's are waited for."""
    return DeviceMemory(cuda, lambda: cuda.call("cudaDeviceSynchronize"))


def _check_float8(bundle: Bundle, device: Device) -> None:
    """`GarBackendError` for a bundle of 8-bit floats and a GPU without them."""
    numbers = tuple(int(number) for number in device.compute_capability.split("."))
    if bundle.manifest.precision == "fp8" and numbers < _FLOAT8:
        raise GarBackendError(
            f"{bundle.folder}: fp8 needs a GPU of compute capability 8.9 or newer (Ada, Hopper, Blackwell, Thor), here "
            f"is {device}; export with gar-export --int8"
        )


def _recipe(name: str, manifest: Manifest, machine: Machine, limits: Limits, replay: Replay) -> EngineRecipe:
    files = {file: manifest.files[file].sha256 for file in manifest.graphs[name].files}
    plan = plan_of(name, manifest, limits, replay.is_plugin)
    recipe = EngineRecipe(name, files, machine.engine, machine.version, machine.device, plan)
    if name != REPLAY:
        return recipe
    return dataclasses.replace(recipe, replay=replay.form.value, plugin=replay.digest())


def _build(
    bundle: Bundle,
    library: Library,
    manifest: Manifest,
    recipe: EngineRecipe,
    replay: Replay,
    target: Target,
    store: Store,
    watch: Watch,
) -> EngineRecord:
    graph, begin = manifest.graphs[recipe.graph], time.perf_counter()
    file = bundle.folder / graph.files[0]
    plugin = recipe.plugin is not None
    engine = build_engine(library, recipe.graph, file, graph, recipe.plan, plugin, target, watch)
    record = EngineRecord(
        recipe,
        bytes=memoryview(engine).nbytes,
        build_seconds=round(time.perf_counter() - begin, 1),
        created_by=f"gar-edge {version('gar-edge')}",
        plugin_file=str(replay.plugin.resolve()) if plugin and replay.plugin is not None else None,
        system=None if target.compute_capability is not None else l4t_release(),
    )
    store.put(record, engine)
    return record
