"""What the commands share: one-line errors, exit codes, warnings as lines."""

from __future__ import annotations

import signal
import sys
import warnings
from types import FrameType
from typing import Any, NoReturn, TextIO

import typer

from gar_edge.runtime.errors import GarError

FAILED, USAGE = 1, 2  # exit codes; 0 is success

# click's base class of wrong arguments, wherever this typer keeps its click.
_USAGE_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class Interrupted(BaseException):
    """Ctrl-C or a polite kill; not an `Exception`, so that nothing on the way takes it for a failure of its own."""


def run_app(app: typer.Typer) -> None:
    """Run a command line: every error is one line on stderr; exit code 2 for usage, 1 for the rest."""
    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = _show_warning
    # Not KeyboardInterrupt, which typer would answer itself, and SIGTERM must unwind as well: half-written files.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.exit(app(standalone_mode=False))
    except _USAGE_ERROR as error:
        fail(f"{error.format_message()} (--help shows the options)", USAGE)
    except GarError as error:
        fail(str(error))
    except Interrupted:
        fail("interrupted")
    except BrokenPipeError:
        sys.stdout = sys.stderr = None  # whoever read our output has left; Python must not complain at exit
        sys.exit(FAILED)
    except OSError as error:
        fail(str(error))


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Print one error line and leave."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


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
