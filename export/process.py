"""How the process of `gar-export` computes: what must be set before torch is loaded, or for the process as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import os

SPINS = 2000  # turns that an OpenMP thread waits for work before it sleeps: some microseconds
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h, the same on every architecture
LARGEST = 2**31 - 1


def settle() -> None:
    """Let threads wait briefly and freed memory be used again. The user's own settings of OpenMP's come first.

    Threads that spin as long as OpenMP lets them take eight times as long beside other work; threads that sleep at once
    take a third longer where there is none. And glibc gives large tensors back to the system when they are freed, so
    that the next is fetched anew, page by page: up to a fifth of a calibration.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_TRIM_THRESHOLD, LARGEST)
        mallopt(M_MMAP_MAX, 0)
