"""One run at a time."""

from __future__ import annotations

import warnings
from pathlib import Path

from gar_edge.runtime.errors import GarPromptError


def lock(file: int, path: Path, held: str) -> None:
    """Hold the open file until it is closed or the process ends; `GarPromptError`, saying `held`, where another does.

    A file system without locks is a warning.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two runs into one file are the user's affair
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise GarPromptError(f"{path}: {held}") from None
    except OSError as error:
        warnings.warn(
            f"{path}: its file system has no locks ({error.strerror}); see that no other run writes to it",
            stacklevel=4,
        )
