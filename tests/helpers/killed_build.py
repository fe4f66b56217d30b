"""A build on the fakes that is killed at the decoder: `python killed_build.py BUNDLE building|writing`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.cuda import FakeCuda
from fakes.cuda_driver import FakeDriver
from fakes.tensorrt import FakeTensorRt

from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.engines.build_progress import BuildStep
from gar_edge.runtime.engines.cuda.api import Cuda
from gar_edge.runtime.engines.tensorrt import engines, store
from gar_edge.runtime.engines.tensorrt.engines import build_engines, here
from gar_edge.runtime.engines.tensorrt.installed import load_library
from gar_edge.runtime.engines.tensorrt.plan import Limits
from gar_edge.runtime.engines.tensorrt.roi_replay import Replay


def killed() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def watch(step: BuildStep) -> None:
    if sys.argv[2] == "building" and step.graph == "decoder":
        killed()


class Store(store.Store):
    """One that is killed in the middle of the decoder's bytes."""

    def put(self, record: store.EngineRecord, engine: Any) -> None:
        if record.recipe.graph == "decoder":
            with store.renamed(self.engine_file(record.recipe)) as scratch:
                scratch.write_bytes(engine[: len(engine) // 2])
                killed()
        super().put(record, engine)


def main() -> None:
    cuda = FakeCuda()
    fakes = {"tensorrt": FakeTensorRt(cuda), "cuda.bindings.runtime": cuda, "cuda.bindings.driver": FakeDriver(cuda)}
    sys.modules.update(fakes)
    bundle, library, device = Bundle.open(sys.argv[1]), load_library("tensorrt"), Cuda.load()
    engines.Store = Store  # type: ignore[misc]
    build_engines(bundle, library, here(library, device), Limits.of(bundle.manifest), Replay(), False, device, watch)


if __name__ == "__main__":
    main()
