"""What memory the machine has, and what is given back to it."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path


def available_memory() -> int:
    """Linux' own estimate of the memory that programs can have, in bytes; 0 where it makes none."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    sizes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return sizes[0] << 10 if sizes else 0


def give_back_freed() -> None:
    """Let the C library return to the system what has been freed, where it can (glibc's malloc_trim)."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other libraries, other systems
        ctypes.CDLL(None).malloc_trim(0)
