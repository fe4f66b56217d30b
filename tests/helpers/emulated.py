"""Python as it runs here, on another x86-64 processor that qemu-user emulates."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HELPERS = Path(__file__).parents[1]
NEEDED = "qemu-x86_64, which emulates other processors, is not installed; apt install qemu-user"
OTHER = "qemu-x86_64 runs this Python on x86-64 Linux alone"
PROCESSORS = ("Haswell", "Nehalem")  # AVX2 without VNNI; neither AVX nor FMA


def run_python(processor: str, code: str, *arguments: str) -> str:
    """What the code prints on such a processor; it skips the test where there is no qemu."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        pytest.skip(OTHER)
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip(NEEDED)
    command = [qemu, "-cpu", processor, sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=HELPERS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
