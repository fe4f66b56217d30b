"""A bundle's TensorRT back end: engines found or built, then loaded."""

from __future__ import annotations

from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.engines.build_progress import Watch
from gar_edge.runtime.engines.cuda.api import Cuda
from gar_edge.runtime.engines.tensorrt.backend import TensorRtBackend
from gar_edge.runtime.engines.tensorrt.engines import GRAPHS, build_engines, find_engines, here, suited
from gar_edge.runtime.engines.tensorrt.installed import load_library
from gar_edge.runtime.engines.tensorrt.plan import Limits
from gar_edge.runtime.engines.tensorrt.roi_replay import Replay
from gar_edge.runtime.engines.tensorrt.runtime_cache import RuntimeCache
from gar_edge.runtime.engines.tensorrt.store import Store
from gar_edge.runtime.errors import GarBackendError


def open_tensorrt(bundle: Bundle, name: str, build_anew: bool, watch: Watch) -> tuple[Bundle, TensorRtBackend]:
    """The bundle as one of the two TensorRTs sees it, and the back end.

    Engines that are there are used, whatever sizes they were built for; a bundle without any gets them now, with the
    sizes its manifest asks for. build_anew: also where there are engines, but none for this machine.
    `GarBackendError` says what is missing, what does not fit, or what TensorRT refuses.
    """
    library = load_library(name)
    cuda = Cuda.load()
    machine = here(library, cuda)
    manifest = suited(bundle, library)
    try:
        engines = find_engines(bundle, library, machine)
    except GarBackendError:
        if not build_anew:
            raise
        engines = {}
    if engines.keys() != set(GRAPHS):
        made = build_engines(bundle, library, machine, Limits.of(manifest), Replay(), False, cuda, watch)
        engines = {engine.record.recipe.graph: engine for engine in made}
    kernels = None
    if library.is_rtx:
        kernels = RuntimeCache(Store(bundle.folder).runtime_cache(library.version, cuda.device()))
    return Bundle(bundle.folder, manifest), TensorRtBackend(library, cuda, manifest, engines, kernels)
