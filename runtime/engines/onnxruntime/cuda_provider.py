"""ONNX Runtime's CUDA provider: every buffer on the GPU, everything on one stream."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.engines.cuda.api import DEVICE, Cuda
from gar_edge.runtime.engines.cuda.memory import DeviceBuffer, Stream, device_buffer
from gar_edge.runtime.engines.cuda.on_device import OnDevice
from gar_edge.runtime.engines.onnxruntime.session import OnnxRuntimeSession, Placed, load_graph
from gar_edge.runtime.engines.protocol import Array, Buffer, Session
from gar_edge.runtime.engines.telemetry import import_onnxruntime
from gar_edge.runtime.errors import GarBackendError

CUDA = "CUDAExecutionProvider"
OLDEST = (1, 28)  # that has a CUDA kernel for every operator of the graphs: those before copy to the processor and back
_INSTALL = "pip uninstall onnxruntime, then pip install 'gar-edge[gpu]'"
_LIBRARIES = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
_CUDNN = ("libcudnn.so.9", "cudnn64_9.dll")
_REQUIRED = re.compile(r"Failed to load .*(cudart|cublas)")  # what `preload_dlls` prints; the rest may be missing


class CudaProviderSession(OnnxRuntimeSession):
    """One graph on the GPU. A run is queued and not waited for: whoever reads a buffer waits."""

    device = "cuda"

    def __init__(self, name: str, session: Any, stream: Stream, run_options: Any) -> None:
        super().__init__(name, session)
        self._stream = stream
        self._run_options = run_options

    def _place(self, value: Buffer | Array) -> Placed:
        if not isinstance(value, np.ndarray):
            return device_buffer(value)
        buffer = DeviceBuffer.new(self._stream, value.shape, value.dtype)
        buffer.write(value)
        return buffer

    def _run(self, binding: Any) -> None:
        with self._stream.lock:
            self._session.run_with_iobinding(binding, self._run_options)


class CudaProviderBackend(OnDevice):
    """A bundle's graphs in ONNX Runtime on the first visible GPU."""

    name = "cuda"

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """`GarBackendError` where there is no GPU, no such ONNX Runtime, or a library of CUDA's is missing."""
        self._ort = import_onnxruntime()
        _check_version(self._ort)
        cuda = Cuda.load()
        cuda.device()
        _load_libraries(self._ort)
        self._folder = folder
        self._manifest = manifest
        super().__init__(cuda, "use a smaller or quantised bundle, fewer tiles or fewer new tokens")

    def session(self, graph: str) -> Session:
        path = self._folder / self._manifest.graphs[graph].files[0]
        session = load_graph(self._ort, path, self._session_options(), [(CUDA, self._provider_options())])
        if CUDA not in session.get_providers():
            raise GarBackendError(
                f"ONNX Runtime {self._ort.__version__} cannot start its CUDA provider (its log says why); it needs a "
                f"driver of CUDA {self._ort.cuda_version} or newer, and its libraries: {_LIBRARIES}"
            )
        run_options = self._ort.RunOptions()
        run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return CudaProviderSession(graph, session, self._stream, run_options)

    def _session_options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = 1  # the processor is left a few shapes, for which threads would only spin
        # Weights outside the arena, which would round their size up.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        return options

    def _provider_options(self) -> dict[str, str]:
        return {
            "device_id": str(DEVICE),
            "user_compute_stream": str(int(self._stream.handle)),
            # The default doubles, and memory that an arena took it does not give back.
            "arena_extend_strategy": "kSameAsRequested",
            # There is one convolution. The default times every algorithm, again for each number of tiles.
            "cudnn_conv_algo_search": "HEURISTIC",
            # fp32 shall mean that; the default rounds products to 10 bits. fp16 is not concerned.
            "use_tf32": "0",
        }


def _check_version(ort: Any) -> None:
    if CUDA not in ort.get_available_providers():
        raise GarBackendError(f"ONNX Runtime {ort.__version__} is built without CUDA; {_INSTALL}")
    numbers = tuple(int(number) for number in re.findall(r"\d+", ort.__version__)[:2])
    if numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise GarBackendError(
            f"ONNX Runtime {ort.__version__} lacks CUDA kernels for these graphs; "
            f"pip install 'onnxruntime-gpu>={oldest}'"
        )


def _load_libraries(ort: Any) -> None:
    """Load CUDA's libraries from NVIDIA's wheels or the system; `GarBackendError` names the first that is missing.

    ONNX Runtime does not look into the wheels by itself, and would say what is missing in its log only.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    missing = [line for line in said.getvalue().splitlines() if _REQUIRED.match(line)]
    if missing:
        raise GarBackendError(
            f"ONNX Runtime {ort.__version__} needs CUDA {ort.cuda_version}'s libraries ({missing[0]}); {_LIBRARIES}"
        )
    if not _cudnn_can_be_loaded():
        raise GarBackendError(f"ONNX Runtime {ort.__version__} needs cuDNN 9, which cannot be loaded; {_LIBRARIES}")


def _cudnn_can_be_loaded() -> bool:
    """ONNX Runtime itself looks for cuDNN at the encoder's first convolution only."""
    for name in _CUDNN:
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False
