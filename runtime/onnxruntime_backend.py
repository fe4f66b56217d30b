"""ONNX Runtime on the CPU, by I/O binding over plain NumPy memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gar_edge.runtime.backend import Array, Buffer, Run, Session
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.machine import available_memory
from gar_edge.runtime.manifest import Manifest

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
ERRORS_ONLY = 3  # onnxruntime's log level


class HostBuffer:
    """A buffer in host memory."""

    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    def rows(self, begin: int, end: int) -> HostBuffer:
        return HostBuffer(self.array[begin:end])

    def reshape(self, *shape: int) -> HostBuffer:
        return HostBuffer(self.array.reshape(shape))

    def write(self, host: Array) -> None:
        self.array[...] = host

    def clear(self) -> None:
        self.array.fill(0)

    def copy_from(self, other: Buffer) -> None:
        self.array[...] = _host(other).array

    def read(self) -> Array:
        return self.array


class OnnxRuntimeSession:
    """One graph in ONNX Runtime."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def bind(self, inputs: Mapping[str, Buffer | Array], outputs: Mapping[str, Buffer]) -> Run:
        binding = self._session.io_binding()
        alive = []  # the binding knows only addresses: the closure keeps the memory behind them
        for name, value in inputs.items():
            array = np.ascontiguousarray(value) if isinstance(value, np.ndarray) else _host(value).array
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            alive.append(array)
        for name, buffer in outputs.items():
            array = _host(buffer).array
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            alive.append(array)

        def run(alive: object = alive) -> None:
            try:
                self._session.run_with_iobinding(binding)
            except Exception as error:  # onnxruntime again
                raise GarBackendError(f"ONNX Runtime failed: {_first_line(error)}") from None

        return run

    def limit(self, name: str, axis: int) -> int | None:
        return None


class OnnxRuntimeBackend:
    """Loads a bundle's graphs into ONNX Runtime; `threads` 0 lets it use every core."""

    name = "onnxruntime"

    def __init__(self, folder: Path, manifest: Manifest, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise GarBackendError(
                "ONNX Runtime is not installed; pip install 'gar-edge[cpu]' (or 'gar-edge[gpu]')"
            ) from None
        self._ort = onnxruntime
        self._folder = folder
        self._manifest = manifest
        self._threads = threads

    def session(self, graph: str) -> Session:
        path = self._folder / self._manifest.graphs[graph].files[0]
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = ERRORS_ONLY
        try:
            return OnnxRuntimeSession(self._ort.InferenceSession(path, options, providers=[CPU]))
        except Exception as error:  # onnxruntime's exceptions share no base class below Exception
            reason = _first_line(error)
            raise GarBackendError(
                f"{path}: ONNX Runtime {self._ort.__version__} refuses the graph ({reason}); "
                "opset 24 needs 1.24 or newer"
            ) from None

    def free_memory(self) -> int:
        return available_memory()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostBuffer:
        return HostBuffer(_allocate(shape, dtype, np.empty))

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostBuffer:
        return HostBuffer(_allocate(shape, dtype, np.zeros))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _allocate(shape: tuple[int, ...], dtype: np.dtype[Any], make: Any) -> Array:
    try:
        return cast(Array, make(shape, dtype))
    except MemoryError:
        size = math.prod(shape) * dtype.itemsize / 2**20
        raise GarBackendError(f"out of memory for a buffer of {size:.0f} MiB; use fewer tiles or new tokens") from None


def _host(buffer: Buffer) -> HostBuffer:
    if not isinstance(buffer, HostBuffer):
        raise TypeError(f"{type(buffer).__name__} is not a buffer of the ONNX Runtime CPU back end")
    return buffer
