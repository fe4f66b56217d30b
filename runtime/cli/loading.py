"""Which bundle a command loads, and with which engine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from gar_edge.runtime.cli.engine_progress import TerminalWatch
from gar_edge.runtime.cli.first_run import ABOUT_NANO, NANO, export_nano
from gar_edge.runtime.files.paths import last_bundle
from gar_edge.runtime.gar import Gar


@dataclass(frozen=True)
class EngineSettings:
    """The bundle (None: the one exported last) and the engine that runs it."""

    model: Path | None
    backend: str
    compat: bool
    threads: int

    def load(self) -> Gar:
        """The model; gar-nano is exported first where nothing has been."""
        if self.model is None and last_bundle() is None:
            print("No bundle has been exported yet: exporting gar-nano once.", file=sys.stderr)
            export_nano()
        with TerminalWatch(sys.stderr) as watch:
            gar = Gar.load(
                self.model,
                backend=self.backend,
                threads=self.threads,
                decoder="compat" if self.compat else "standard",
                watch=watch,
            )
        if self.model is None and gar.manifest.source.name == NANO:
            print(ABOUT_NANO, file=sys.stderr)
        return gar
