"""How the process of `gar-export` computes: what must be set before torch is loaded, or for the process as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import os

SPINS = 2000  # turns that an OpenMP thread waits for work before it sleeps: tens of microseconds
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h, the same on every architecture
LARGEST = 2**31 - 1


def settle_threads() -> None:
    """Let OpenMP's threads wait briefly, unless the user said how.

    Threads that spin as long as OpenMP lets them take eight times as long beside other work; threads that sleep at once
    take a third longer where there is none.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)  # goes before the policy where the library is GNU's


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next tensor, instead of giving it back to the system.

    Otherwise every large one is fetched anew, page by page: up to a fifth of a calibration. What is kept counts as
    taken until `runtime.engines.host_memory.give_back_freed`.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_TRIM_THRESHOLD, LARGEST)
        mallopt(M_MMAP_MAX, 0)
