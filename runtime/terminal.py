"""What the commands share: one-line errors, exit codes, warnings as lines."""

from __future__ import annotations

import signal
import sys
import warnings
from types import FrameType
from typing import TextIO

import typer

from gar_edge.runtime.errors import GarError

FAILED, USAGE = 1, 2  # exit codes; 0 is success


class Interrupted(BaseException):
    """Ctrl-C or a polite kill; not an `Exception`, so that nothing on the way takes it for a failure of its own."""


def run_app(app: typer.Typer) -> None:
    """Run a command line: a `GarError` becomes one line on stderr and exit code 1, an interrupt likewise."""
    warnings.showwarning = _show_warning
    # Not KeyboardInterrupt, which typer would answer itself, and SIGTERM must unwind as well: half-written files.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except GarError as error:
        fail(str(error))
    except Interrupted:
        fail("interrupted")
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left; Python must not complain at exit
        sys.exit(FAILED)


def fail(message: str) -> None:
    """Print one error line and leave with exit code 1."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(FAILED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=sys.stderr)
