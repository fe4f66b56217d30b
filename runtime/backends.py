"""Which engine runs a bundle: the one asked for by name, or the best that is there."""

from __future__ import annotations

import warnings

from gar_edge.runtime.backend import Backend
from gar_edge.runtime.bundle import Bundle
from gar_edge.runtime.choices import BackendName
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.gpu import nvidia_gpu_is_visible
from gar_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend
from gar_edge.runtime.tensorrt.opening import open_tensorrt
from gar_edge.runtime.tensorrt.progress import Watch

CPU_ENGINE = "cpu"  # the form of the graphs for processors, in bundles that have one
_TENSORRTS = (BackendName.TENSORRT, BackendName.TENSORRT_RTX)


def open_backend(bundle: Bundle, name: str, threads: int, watch: Watch) -> tuple[Bundle, Backend]:
    """The bundle as the engine sees it, and the engine.

    `watch` hears of engines being built, where that is needed. "auto" falls back to ONNX Runtime, with a warning
    where there is a GPU; `GarBackendError` where the one that was asked for by name cannot be had.
    """
    try:
        chosen = BackendName(name)
    except ValueError:
        known = ", ".join(one.value for one in BackendName)
        raise GarBackendError(f"backend {name!r} is unknown; choose from {known}") from None
    if chosen in _TENSORRTS:
        return open_tensorrt(bundle, chosen.value, False, watch)
    if chosen is BackendName.AUTO and nvidia_gpu_is_visible():
        reasons = []
        for tensorrt in _TENSORRTS:
            try:
                return open_tensorrt(bundle, tensorrt.value, True, watch)
            except GarBackendError as error:
                reasons.append(str(error))
        warnings.warn(f"the GPU is not used, ONNX Runtime answers on the processor: {reasons[0]}", stacklevel=3)
    opened = bundle.for_engine(CPU_ENGINE)
    return opened, OnnxRuntimeBackend(opened.folder, opened.manifest, threads)
