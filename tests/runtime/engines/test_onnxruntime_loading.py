"""Graphs that ONNX Runtime loads side by side."""

from pathlib import Path
from threading import Event
from typing import Any

import pytest

from gar_edge.runtime import GarBackendError
from gar_edge.runtime.bundle.bundle import read_manifest
from gar_edge.runtime.engines.onnxruntime import processor as onnxruntime_backend
from gar_edge.runtime.engines.onnxruntime.processor import OnnxRuntimeBackend


@pytest.mark.parametrize("error", [GarBackendError("refused"), KeyboardInterrupt()])
def test_nothing_more_is_loaded_once_a_graph_has_failed(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    manifest, begun, failed = read_manifest(tiny_bundle), [], Event()

    def load(_: Any, path: Path, *__: Any) -> None:
        begun.append(path.name)
        if len(begun) == 1:
            raise error
        failed.wait(30)  # the second is being loaded while the third waits for its turn

    monkeypatch.setattr(onnxruntime_backend, "load_graph", load)
    first, second, third = manifest.graphs
    backend = OnnxRuntimeBackend(tiny_bundle, manifest, threads=1, ahead=True)
    with pytest.raises(type(error)):
        backend.session(first)
    failed.set()
    backend.session(second)  # asked for again, it is loaded again
    assert manifest.graphs[third].files[0] not in begun
