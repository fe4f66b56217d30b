"""Options that are the same in several commands: which bundle answers, by which engine, and how long."""

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

ANSWER = "Answer"
MaxNewTokens: TypeAlias = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.", rich_help_panel=ANSWER)]
MaxTiles: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most tiles beside the thumbnail. Default: the bundle's.",
        show_default=False,
        rich_help_panel=ANSWER,
    ),
]
