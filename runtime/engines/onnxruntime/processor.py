"""ONNX Runtime on the CPU, by I/O binding over plain NumPy memory."""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np

from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.engines.host_memory import available_memory, give_back_freed
from gar_edge.runtime.engines.onnxruntime.exact_products import keep_exact, products_saturate
from gar_edge.runtime.engines.onnxruntime.session import OnnxRuntimeSession, Placed, load_graph
from gar_edge.runtime.engines.protocol import Array, Buffer, Session
from gar_edge.runtime.engines.telemetry import import_onnxruntime
from gar_edge.runtime.errors import GarBackendError

CPU = "CPUExecutionProvider"


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

    @property
    def address(self) -> int:
        return int(self.array.ctypes.data)

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


class HostSession(OnnxRuntimeSession):
    """One graph on the processor. A run is over when it returns."""

    device = "cpu"

    def _place(self, value: Buffer | Array) -> Placed:
        return HostBuffer(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else _host(value)

    def _run(self, binding: Any) -> None:
        self._session.run_with_iobinding(binding)


class OnnxRuntimeBackend:
    """Loads a bundle's graphs into ONNX Runtime; `threads` 0 lets it use every core."""

    name = "onnxruntime"
    cutter = None
    features_at_once = 64  # a tile of the 1B keeps all cores busy alone, and four take 650 MB more; nano's are small
    # Attention also computes what the mask hides, half of a chunk's own scores; and a layer's scores beyond 32 MB (of
    # 256 positions from 1,024 slots on) are memory that malloc gives back, and the system clears, each time.
    prefill_chunk = 128

    def __init__(self, folder: Path, manifest: Manifest, threads: int = 0, ahead: bool = False) -> None:
        """ahead: load all graphs now and side by side: ONNX Runtime packs the weights of each on one core."""
        self._ort = import_onnxruntime()
        self._folder = folder
        self._manifest = manifest
        self._threads = threads
        self._saturate = products_saturate(self._ort)
        self._loading: dict[str, Future[Session]] = {}
        if ahead:
            pool = ThreadPoolExecutor(threads or len(manifest.graphs), "gar-load")
            self._loading = {graph: pool.submit(self._load, graph) for graph in manifest.graphs}
            pool.shutdown(wait=False)

    def session(self, graph: str) -> Session:
        loading = self._loading.pop(graph, None)
        if loading is None:
            return self._load(graph)
        try:
            return loading.result()
        except BaseException:  # an interruption, too, waits for what has begun, and not for more
            for other in self._loading.values():
                other.cancel()
            self._loading.clear()
            raise

    def _load(self, graph: str) -> Session:
        path = self._folder / self._manifest.graphs[graph].files[0]
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        # An arena keeps its high-water mark, the encoder's scores, through all of decoding: 0.4 GB of the int8 1B's
        # peak. The decoder's alone made long prompts 1.1 times as fast, and the tokens behind them slower.
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        # Threads that have nothing to do wait in a loop, which is right within a run; behind it, others want the cores:
        # whoever cuts the next picture, and the next graph's own threads.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        keep_exact(options, self._saturate)
        session = load_graph(self._ort, path, options, [CPU])
        if self._saturate:
            give_back_freed()  # the shifted weights, which are packed by now: a gigabyte of the int8 1B
        return HostSession(graph, session)

    def free_memory(self) -> int:
        return available_memory()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostBuffer:
        return HostBuffer(_allocate(shape, dtype, np.empty))

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostBuffer:
        return HostBuffer(_allocate(shape, dtype, np.zeros))


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
