"""Which engine runs a bundle: the one asked for by name, or the best that is there."""

from __future__ import annotations

import warnings

from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.manifest import GraphForm
from gar_edge.runtime.engines.build_progress import Watch
from gar_edge.runtime.engines.gpu import nvidia_gpu_is_visible
from gar_edge.runtime.engines.names import BackendName, DecoderName
from gar_edge.runtime.engines.onnxruntime.cuda_provider import CudaProviderBackend
from gar_edge.runtime.engines.onnxruntime.newest_operators import NEEDED, knows_newest_operators
from gar_edge.runtime.engines.onnxruntime.processor import OnnxRuntimeBackend
from gar_edge.runtime.engines.protocol import Backend
from gar_edge.runtime.engines.telemetry import import_onnxruntime
from gar_edge.runtime.engines.tensorrt.opening import open_tensorrt
from gar_edge.runtime.errors import GarBackendError, GarBundleError

_TENSORRTS = (BackendName.TENSORRT, BackendName.TENSORRT_RTX)


def open_backend(
    bundle: Bundle,
    *,
    name: str = BackendName.AUTO.value,
    decoder: str = DecoderName.STANDARD.value,
    threads: int = 0,
    watch: Watch = lambda step: None,
) -> tuple[Bundle, Backend]:
    """The bundle as the engine sees it, and the engine.

    `watch` hears of engines being built, where that is needed. "auto" takes the first that can be had of TensorRT,
    TensorRT-RTX and ONNX Runtime on the GPU, else ONNX Runtime on the processor, with a warning where there is a GPU.
    An ONNX Runtime that is too old for the standard decoder takes the compat one, with a warning.
    `GarBackendError` where the one that was asked for by name cannot be had, `GarBundleError` where the bundle lacks
    the decoder that was.
    """
    chosen = BackendName(_known(name, "backend", [one.value for one in BackendName]))
    if DecoderName(_known(decoder, "decoder", [one.value for one in DecoderName])) is DecoderName.COMPAT:
        return _open_compat(bundle, chosen, threads)
    if chosen is not BackendName.AUTO:
        return _open(bundle, chosen, False, threads, watch)
    if nvidia_gpu_is_visible():
        reasons = []
        for on_gpu in (*_TENSORRTS, BackendName.CUDA):
            try:
                return _open(bundle, on_gpu, True, threads, watch)
            except GarBackendError as error:
                reasons.append(str(error))
        warnings.warn(f"the GPU is not used, ONNX Runtime answers on the processor: {reasons[0]}", stacklevel=3)
    return _open(bundle, BackendName.ONNXRUNTIME, True, threads, watch)


def _open(bundle: Bundle, chosen: BackendName, build_anew: bool, threads: int, watch: Watch) -> tuple[Bundle, Backend]:
    if chosen in _TENSORRTS:
        return open_tensorrt(bundle, chosen.value, build_anew, watch)
    if chosen is BackendName.CUDA:  # a quantised bundle's main form: float16, as a GPU takes it
        return bundle, CudaProviderBackend(bundle.folder, bundle.manifest)
    ort = import_onnxruntime()
    if knows_newest_operators(ort):
        return _on_processor(bundle.for_engine(GraphForm.CPU), threads)
    if GraphForm.COMPAT not in bundle.manifest.engine_graphs:
        raise GarBackendError(
            f"ONNX Runtime {ort.__version__} is too old for {bundle.folder}: {NEEDED}; "
            "or export the bundle again with --compat (not --int4)"
        )
    warnings.warn(
        f"ONNX Runtime {ort.__version__} is too old for the standard decoder, so the compat one answers, "
        f"one question at a time; {NEEDED}",
        stacklevel=4,
    )
    return _on_processor(bundle.for_engine(GraphForm.COMPAT), threads)


def _open_compat(bundle: Bundle, chosen: BackendName, threads: int) -> tuple[Bundle, Backend]:
    if GraphForm.COMPAT not in bundle.manifest.engine_graphs:
        raise GarBundleError(f"{bundle.folder}: has no compat decoder; export it again with --compat (not --int4)")
    if chosen in _TENSORRTS:
        raise GarBackendError(
            f"the {chosen.value} back end chooses the decoder by its version; ask for compat with onnxruntime or cuda"
        )
    opened = bundle.for_engine(GraphForm.COMPAT)
    if chosen is BackendName.CUDA:
        return opened, CudaProviderBackend(opened.folder, opened.manifest)
    return _on_processor(opened, threads)


def _on_processor(bundle: Bundle, threads: int) -> tuple[Bundle, Backend]:
    return bundle, OnnxRuntimeBackend(bundle.folder, bundle.manifest, threads, ahead=True)


def _known(name: str, what: str, names: list[str]) -> str:
    if name not in names:
        raise GarBackendError(f"{what} {name!r} is unknown; choose from {', '.join(names)}")
    return name
