"""The replay kernel as seen from Python: its variants and its launch. Its source is `cuda/roi_replay_aot.cu`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

ENTRY = "gar_roi_replay"  # the function's name in the PTX
SOURCES = Path(__file__).parent / "cuda"
SOURCE = SOURCES / "roi_replay_aot.cu"

SAMPLES = 2  # RoIAlign's sampling_ratio, the only one there is a kernel for

# As in roi_replay_block.h.
_LOAD_BYTES = 16
_WARP = 32
_MAX_THREADS = 256


class Element(Enum):
    """Types that features may have, by their names in the kernel's source."""

    FLOAT32 = "float"
    FLOAT16 = "gar::Half"
    BFLOAT16 = "gar::Bfloat16"

    @property
    def bytes(self) -> int:
        """Size of one element."""
        return 4 if self is Element.FLOAT32 else 2


@dataclass(frozen=True)
class Variant:
    """What is compiled into one kernel."""

    element: Element
    output_size: int  # tokens along a tile's side
    spatial_scale: float  # a float32's value

    @property
    def defines(self) -> dict[str, str]:
        """The macros that the source asks for."""
        return {
            "GAR_ELEMENT": self.element.value,
            "GAR_OUTPUT_SIZE": str(self.output_size),
            "GAR_SPATIAL_SCALE": self.spatial_scale.hex() + "f",  # hexadecimal, so that no bit is lost
        }


def block_threads(channels: int, element: Element) -> int:
    """Threads of a block: one for each 16 bytes of a token, in whole warps."""
    packs = -(-channels * element.bytes // _LOAD_BYTES)
    return min(-(-packs // _WARP) * _WARP, _MAX_THREADS)
