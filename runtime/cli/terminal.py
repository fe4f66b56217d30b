"""What the commands share: one-line errors, exit codes, warnings as lines."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from types import FrameType
from typing import Any, NoReturn, TextIO

import typer

from gar_edge.runtime.cli.streams import drop, mend_streams
from gar_edge.runtime.errors import GarError
from gar_edge.runtime.files.addresses import shown

FAILED, USAGE = 1, 2  # exit codes; 0 is success

# click's base class of wrong arguments, wherever this typer keeps its click.
_USAGE_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class Interrupted(BaseException):
    """Ctrl-C or a polite kill; not an `Exception`, so that nothing on the way takes it for a failure of its own."""


def run_app(app: typer.Typer) -> None:
    """Run a command line: every error is one line on stderr; exit code 2 for usage, 1 for the rest."""
    mend_streams()
    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = _show_warning
    # Not KeyboardInterrupt, which typer would answer itself, and SIGTERM must unwind as well: half-written files.
    sys.unraisablehook = _not_lost
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except _USAGE_ERROR as error:
        fail(f"{error.format_message()} (--help shows the options)", USAGE)
    except GarError as error:
        fail(str(error))
    except Interrupted:
        fail("interrupted")
    except BrokenPipeError:
        drop("stdout", "stderr")  # whoever read our output has left
        sys.exit(FAILED)
    except OSError as error:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        drop("stdout")  # which may be what failed
        fail(f"{where}{error.strerror or error}")


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Print one error line and leave."""
    try:
        print(f"error: {shown(' '.join(message.split()))}", file=sys.stderr, flush=True)
    except OSError:
        drop("stderr")
    sys.exit(code)


def _not_lost(unraisable: sys.UnraisableHookArgs) -> None:
    """Ctrl-C that came while an object was finalised, where Python lets nothing be raised, comes again."""
    if unraisable.exc_type is Interrupted:
        # From another thread, and later: here, too, it would be lost.
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)


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
    print(f"warning: {shown(str(message))}", file=sys.stderr)
