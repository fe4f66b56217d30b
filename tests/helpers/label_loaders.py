"""Ways to load a model that workers on other nodes can import."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gar_edge.runtime import Gar
from gar_edge.runtime.label.task import Loader


@dataclass(frozen=True)
class OtherBundleOn:
    """Loads by `load`, but on one node a bundle of this folder, which that node is to take for the same."""

    load: Loader
    node: str
    folder: Path

    def __call__(self) -> Gar:
        import ray

        here = ray.get_runtime_context().get_node_id() == self.node
        return Loader(bundle=self.folder, digest=self.load.digest)() if here else self.load()


@dataclass(frozen=True)
class DiesOnce:
    """Loads by `load`; the first process to do so after `armed` is there dies some answers later."""

    load: Loader
    armed: Path

    def __call__(self) -> Gar:
        gar = self.load()
        bind, runs = gar.pipeline.decoder.session.bind, 0

        def counted(*arguments: object) -> object:
            nonlocal runs
            runs += 1
            if runs > 60 and self.armed.exists():
                self.armed.unlink()
                os._exit(9)
            return bind(*arguments)

        gar.pipeline.decoder.session.bind = counted  # type: ignore[method-assign, assignment]
        return gar


@dataclass(frozen=True)
class DiesLoading:
    """Takes the process with it, as a crash in a library would."""

    def __call__(self) -> Gar:
        os._exit(9)
