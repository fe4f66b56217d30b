"""Which bundle a command loads, and with which engine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from gar_edge.runtime.bundle.shipped import NANO
from gar_edge.runtime.cli.engine_progress import TerminalWatch
from gar_edge.runtime.cli.first_run import ABOUT_NANO
from gar_edge.runtime.engines.names import DecoderName
from gar_edge.runtime.gar import BATCH, CACHE_BYTES, QUEUE, Gar


@dataclass(frozen=True)
class EngineSettings:
    """The bundle (None: the one exported last, or else gar-nano) and the engine that runs it."""

    model: Path | None
    backend: str
    compat: bool
    threads: int

    def load(self, *, batch: int = BATCH, queue: int = QUEUE, cache_bytes: int = CACHE_BYTES) -> Gar:
        """The model; where none is named and it is gar-nano, what that is. The rest as of `Gar.load`."""
        with TerminalWatch(sys.stderr) as watch:
            gar = Gar.load(
                self.model,
                backend=self.backend,
                threads=self.threads,
                decoder=DecoderName.of(self.compat).value,
                batch=batch,
                queue=queue,
                cache_bytes=cache_bytes,
                watch=watch,
            )
        if self.model is None and gar.manifest.source.name == NANO:
            print(ABOUT_NANO, file=sys.stderr)
        return gar
