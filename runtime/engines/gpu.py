"""Is there an NVIDIA GPU, and is it a Jetson's? Asked of driver and system themselves, with nothing installed."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
_TEGRA = Path("/etc/nv_tegra_release")  # "# R36 (release), REVISION: 4.7, GCID: …"


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


def l4t_release() -> str | None:
    """The release of a Jetson's system, "L4T 36.4.7", which names its JetPack; None elsewhere."""
    try:
        text = _TEGRA.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"L4T {found[1]}.{found[2]}" if found else None
