"""What the commands share: one-line errors, exit codes, warnings as lines."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import TextIO

import typer

from gar_edge.runtime.errors import GarError

FAILED, USAGE = 1, 2  # exit codes; 0 is success


def run_app(app: typer.Typer) -> None:
    """Run a command line: a `GarError` becomes one line on stderr and exit code 1, an interrupt a word."""
    warnings.showwarning = _show_warning
    try:
        app()
    except GarError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted")
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left; Python must not complain at exit
        sys.exit(FAILED)


def fail(message: str) -> None:
    """Print one error line and leave with exit code 1."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(FAILED)


def usage(check: Callable[[], object]) -> None:
    """Run a check of the command's own arguments: its `GarError` is a usage error (exit code 2)."""
    try:
        check()
    except GarError as error:
        raise typer.BadParameter(str(error)) from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=sys.stderr)
