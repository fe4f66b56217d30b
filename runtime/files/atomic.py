"""Files that are there whole or not at all, whoever else writes or ends in between."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED = 3600  # seconds without a change
_SCRATCH = re.compile(r"\..*\.partial-\d+-\d+")


@contextmanager
def renamed(path: Path) -> Iterator[Path]:
    """A scratch file beside `path` that takes its name when all went well, and is gone otherwise."""
    scratch = path.with_name(f".{path.name}.partial-{os.getpid()}-{threading.get_ident()}")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove scratch files that killed processes left in a folder.

    Idle for an hour, since a process that is not to be seen may live in another container.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if _SCRATCH.fullmatch(path.name) and time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with renamed(path) as scratch:
        scratch.write_bytes(content)
