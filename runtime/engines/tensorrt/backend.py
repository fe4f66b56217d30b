"""TensorRT and TensorRT-RTX behind the runtime's protocol."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gar_edge.runtime.bundle.manifest import Manifest
from gar_edge.runtime.engines.cuda.api import Cuda
from gar_edge.runtime.engines.cuda.device_memory import advice
from gar_edge.runtime.engines.cuda.memory import Scratch
from gar_edge.runtime.engines.cuda.on_device import OnDevice
from gar_edge.runtime.engines.protocol import Session
from gar_edge.runtime.engines.tensorrt.allocator import allocator
from gar_edge.runtime.engines.tensorrt.engines import BuiltEngine
from gar_edge.runtime.engines.tensorrt.installed import Library
from gar_edge.runtime.engines.tensorrt.roi_replay import load_plugin
from gar_edge.runtime.engines.tensorrt.runtime_cache import RuntimeCache
from gar_edge.runtime.engines.tensorrt.session import Shared, TensorRtSession
from gar_edge.runtime.errors import GarBackendError


class TensorRtBackend(OnDevice):
    """A bundle's engines on the first visible GPU."""

    def __init__(
        self,
        library: Library,
        cuda: Cuda,
        manifest: Manifest,
        engines: Mapping[str, BuiltEngine],
        kernels: RuntimeCache | None = None,
    ) -> None:
        """kernels: where TensorRT-RTX keeps what it compiles; the regular one has no such thing."""
        self.name = library.name
        self._library = library
        self._manifest = manifest
        self._engines = engines
        super().__init__(
            cuda, "ask with fewer tiles, or build smaller engines with gar-engine build --capacity or --max-tiles"
        )
        self._shared = Shared(self._stream, Scratch(self._stream), kernels)
        self._runtime = library.trt.Runtime(library.logger)
        self._runtime.gpu_allocator = allocator(library.trt, self._stream.memory)

    def session(self, graph: str) -> Session:
        engine = self._engines[graph]
        record = engine.record
        if record.plugin_file is not None:
            load_plugin(self._library, Path(record.plugin_file))
        loaded = self._load(engine.file)
        return TensorRtSession(
            graph, self._library, loaded, self._manifest.graphs[graph], record.recipe.plan, self._shared
        )

    def _load(self, file: Path) -> Any:
        memory = self._stream.memory
        # Mapped, not read: on a Jetson the file's pages and the GPU's copy share one memory.
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            view = memoryview(content)
            memory.refused = 0
            try:
                engine = self._runtime.deserialize_cuda_engine(view)
            finally:
                view.release()
        if engine is None and memory.refused:
            raise GarBackendError(
                f"{file}: out of GPU memory for {memory.refused / 2**20:.0f} MiB of the engine; "
                f"{self._stream.remedy}{advice(memory.cuda, memory.refused)}"
            )
        if engine is None:
            raise GarBackendError(
                f"{file}: {self._library.title} cannot load the engine ({self._library.reason()}); "
                "gar-engine build --rebuild makes it anew"
            )
        return engine
