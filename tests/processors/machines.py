"""Processors that qemu-user emulates, and how Python runs on each."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ARMV8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_ARMV8_2 = f"{_ARMV8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"  # with dot products


@dataclass(frozen=True)
class Processor:
    """name: qemu's. part, features: as an ARM core's /proc/cpuinfo has them; empty for x86-64."""

    name: str
    part: str = ""
    features: str = ""

    @property
    def arm(self) -> bool:
        return bool(self.part)


NATIVE = Processor("native")
PROCESSORS: Mapping[str, Processor] = {
    one.name: one
    for one in (
        Processor("Haswell"),
        Processor("Nehalem"),
        Processor("cortex-a57", "0xd07", _ARMV8),
        Processor("cortex-a72", "0xd08", _ARMV8),
        Processor("cortex-a76", "0xd0b", _ARMV8_2),
    )
}


def python_on(processor: Processor, arm_root: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    """The command that is Python on a processor, and what it needs in the environment.

    arm_root: what `arm_root.sh` made. Its /proc/cpuinfo is written anew: qemu shows programs the host's, in which
    ONNX Runtime finds no ARM core, and crashes. So two processors of ARM cannot be emulated at once.
    """
    if processor == NATIVE:
        return [sys.executable], {}
    qemu = shutil.which("qemu-aarch64" if processor.arm else "qemu-x86_64")
    if qemu is None:
        raise SystemExit("qemu-user is not installed: apt install qemu-user")
    if not processor.arm:
        return [qemu, "-cpu", processor.name, sys.executable], {}
    if not (arm_root / "site").is_dir():
        raise SystemExit(f"{arm_root} holds no Python for ARM: tests/processors/arm_root.sh {arm_root}")
    cores = "".join(_core(processor, number) for number in range(2))
    (arm_root / "proc").mkdir(exist_ok=True)
    (arm_root / "proc" / "cpuinfo").write_text(cores, encoding="ascii")
    command = [qemu, "-cpu", processor.name, "-L", str(arm_root), str(arm_root / "usr/bin/python3.11")]
    return command, {"PYTHONPATH": str(arm_root / "site")}


def _core(processor: Processor, number: int) -> str:
    lines = {
        "processor": str(number), "BogoMIPS": "108.00", "Features": processor.features, "CPU implementer": "0x41",
        "CPU architecture": "8", "CPU variant": "0x1", "CPU part": processor.part, "CPU revision": "0",
    }  # fmt: skip
    return "".join(f"{key}\t: {value}\n" for key, value in lines.items()) + "\n"
