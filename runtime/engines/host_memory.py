"""What the machine has."""

from __future__ import annotations

from pathlib import Path


def available_memory() -> int:
    """Linux' own estimate of the memory that programs can have, in bytes; 0 where it makes none."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    sizes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return sizes[0] << 10 if sizes else 0
