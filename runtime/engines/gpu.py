"""Is there an NVIDIA GPU? Asked of the driver itself, with nothing installed."""

from __future__ import annotations

import ctypes

_DRIVERS = ("libcuda.so.1", "nvcuda.dll")


def nvidia_gpu_is_visible() -> bool:
    """Whether NVIDIA's driver is there and shows this process a GPU."""
    for name in _DRIVERS:
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return False
