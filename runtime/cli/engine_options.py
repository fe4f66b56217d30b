"""Options that say which bundle answers, by which engine: the same in every command that has no panel for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from gar_edge.runtime.engines.names import BackendName

Model: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "-m",
        "--model",
        help="Bundle folder. Default: the one exported last, or else gar-nano.",
        show_default=False,
    ),
]
Backend: TypeAlias = Annotated[BackendName, typer.Option(help="The engine, as of gar-run.")]
Threads: TypeAlias = Annotated[int, typer.Option(min=0, help="Processor threads; 0: all cores.")]
