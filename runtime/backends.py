"""Which engine runs a bundle: the one asked for by name, or the best that is there."""

from __future__ import annotations

import warnings

from gar_edge.runtime.backend import Backend
from gar_edge.runtime.bundle import Bundle
from gar_edge.runtime.choices import BackendName, DecoderName
from gar_edge.runtime.errors import GarBackendError, GarBundleError
from gar_edge.runtime.gpu import nvidia_gpu_is_visible
from gar_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend
from gar_edge.runtime.tensorrt.opening import open_tensorrt
from gar_edge.runtime.tensorrt.progress import Watch

# Forms of the graphs, in bundles that have them.
CPU_ENGINE = "cpu"
COMPAT_ENGINE = "compat"  # knows no newer operator than opset 20's
_TENSORRTS = (BackendName.TENSORRT, BackendName.TENSORRT_RTX)


def open_backend(bundle: Bundle, name: str, decoder: str, threads: int, watch: Watch) -> tuple[Bundle, Backend]:
    """The bundle as the engine sees it, and the engine.

    `watch` hears of engines being built, where that is needed. "auto" falls back to ONNX Runtime, with a warning
    where there is a GPU; `GarBackendError` where the one that was asked for by name cannot be had, `GarBundleError`
    where the bundle lacks the decoder that was.
    """
    chosen = BackendName(_known(name, "backend", [one.value for one in BackendName]))
    if DecoderName(_known(decoder, "decoder", [one.value for one in DecoderName])) is DecoderName.COMPAT:
        return _open_compat(bundle, chosen, threads)
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
    return _open_onnxruntime(bundle, CPU_ENGINE, threads)


def _open_compat(bundle: Bundle, chosen: BackendName, threads: int) -> tuple[Bundle, Backend]:
    if COMPAT_ENGINE not in bundle.manifest.engine_graphs:
        raise GarBundleError(f"{bundle.folder}: has no compat decoder; export it again with --compat (not --int4)")
    if chosen in _TENSORRTS:
        raise GarBackendError(
            f"the {chosen.value} back end chooses the decoder by its version; ask for compat with onnxruntime only"
        )
    return _open_onnxruntime(bundle, COMPAT_ENGINE, threads)


def _open_onnxruntime(bundle: Bundle, engine: str, threads: int) -> tuple[Bundle, Backend]:
    opened = bundle.for_engine(engine)
    return opened, OnnxRuntimeBackend(opened.folder, opened.manifest, threads)


def _known(name: str, what: str, names: list[str]) -> str:
    if name not in names:
        raise GarBackendError(f"{what} {name!r} is unknown; choose from {', '.join(names)}")
    return name
