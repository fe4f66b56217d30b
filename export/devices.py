"""What `gar-export --for DEVICE` chooses for a device, and why: precision, form of the decoder, its head, most tiles.

Capabilities and versions are NVIDIA's (docs/jetson.md has the table). Nothing here was timed on any of the devices: the
reasons are what they can compute, what their TensorRT can read, and what fits their memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from gar_edge.runtime.errors import GarExportError

SYSTEM_GB = 1.5  # for the system, CUDA, TensorRT and Python: a guess, as docs/jetson.md says


class DeviceName(str, Enum):
    """Devices that `--for` knows."""

    ORIN_NANO = "orin-nano"
    ORIN = "orin"
    THOR = "thor"
    RTX30 = "rtx30"
    RTX40 = "rtx40"
    RTX50 = "rtx50"


@dataclass(frozen=True)
class _Device:
    """title: its name in sentences. memory: GB of the least and of the largest of its kind.

    precisions: preferred first, each with why.

    compat: why it gets a compat decoder; None: it gets none. split: why its head is split; None: it is not. tiles: most
    tiles and why; None: the checkpoint's.
    """

    title: str
    memory: tuple[int, int]
    precisions: tuple[tuple[str, str], ...]
    compat: str | None = None
    split: str | None = None
    tiles: tuple[int, str] | None = None


_INT8 = ("int8", "its tensor cores multiply int8 and no 8-bit floats, and a token reads half of float16's bytes")
_FP8 = ("fp8", "its tensor cores multiply 8-bit floats, which keep outliers; a token reads half of float16's bytes")
_INT4 = ("int4", "the layers' weights in 4 bits, because 8 do not fit")
_JETPACK_6 = "JetPack 6's TensorRT 10.3 lacks the standard decoder's operators; JetPack 7.2 takes the standard one"
_NVMAP = "from L4T 36.4.7 on JetPack 6 was seen to refuse single allocations of hundreds of MB, as a whole head is"

_DEVICES = {
    DeviceName.ORIN_NANO: _Device(
        "Orin Nano", (8, 8), (_INT8,), _JETPACK_6, _NVMAP,
        (4, "its 8 GB are the system's too; cache and scratch are half of what 16 tiles take"),
    ),
    DeviceName.ORIN: _Device("Orin NX or AGX Orin", (16, 64), (_INT8,), _JETPACK_6, _NVMAP),
    DeviceName.THOR: _Device(
        "Thor", (128, 128), (_FP8,), "the TensorRT 10.13 of JetPack 7.0 and 7.1 lacks the standard decoder's operators"
    ),
    DeviceName.RTX30: _Device("GeForce RTX 30", (8, 24), (_INT8, _INT4)),
    DeviceName.RTX40: _Device("GeForce RTX 40", (8, 24), (_FP8, _INT4)),
    DeviceName.RTX50: _Device("GeForce RTX 50", (8, 32), (_FP8, _INT4)),
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """What is exported, and a reason for each part of it. tiles: None for the checkpoint's own limit."""

    device: str
    precision: str
    compat: bool
    split_head: bool
    tiles: int | None
    reasons: tuple[str, ...]

    def sentences(self) -> list[str]:
        """The choice as options, then its reasons, a line each."""
        options = [f"--{self.precision}", *["--compat"] * self.compat, *["--split-head"] * self.split_head]
        if self.tiles is not None:
            options.append(f"--max-tiles {self.tiles}")
        return [f"For {self.device}: {' '.join(options)}", *(f"  {reason}" for reason in self.reasons)]


def choose(
    name: DeviceName, needed: Callable[[str, int | None, bool], float], limit: int, asked: int | None = None
) -> Choice:
    """The first precision that fits every device of this name, else the first that fits some; `GarExportError` if none.

    needed: GB of weights and caches for a precision, most tiles (None: `limit`), and with a compat decoder or without.
    limit: the checkpoint's most tiles, which the device may lower; asked: the user's own number, which stays.
    """
    device = _DEVICES[name]
    compat = device.compat is not None
    lowered = None
    if asked is None and device.tiles is not None and device.tiles[0] < limit:
        lowered = device.tiles
    tiles = asked if lowered is None else lowered[0]
    sizes = {precision: needed(precision, tiles, compat) + SYSTEM_GB for precision, _ in device.precisions}
    least, largest = device.memory
    fitting = [one for one in device.precisions if sizes[one[0]] <= least]
    fitting += [one for one in device.precisions if sizes[one[0]] <= largest]
    if not fitting:
        told = " or ".join(f"{size:.1f} GB as {precision}" for precision, size in sizes.items())
        raise GarExportError(
            f"the model needs about {told}, and {device.title} has {largest} GB; "
            "take a smaller model, or without --for a precision of your own"
        )
    precision, why = fitting[0]
    memory = f"{least}" if least == largest else f"{least} to {largest}"
    warning = "" if sizes[precision] <= least else ", so not in every one"
    reasons = [
        f"{precision}: {why}",
        f"memory: about {sizes[precision]:.1f} GB with caches, of {memory} GB{warning}",
    ]
    if device.compat is not None:
        reasons.append(f"compat: {device.compat}")
    if device.split is not None:
        reasons.append(f"split head: {device.split}")
    if lowered is not None:
        reasons.append(f"{lowered[0]} tiles: {lowered[1]}; --max-tiles allows more")
    return Choice(device.title, precision, compat, device.split is not None, tiles, tuple(reasons))
