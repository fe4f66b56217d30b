"""COCO's run-length encoding of masks.

Columns from left to right, each from top to bottom, runs of 0 and 1 in turn beginning with 0. Its text form writes a
run as 5-bit groups, lowest first, in characters from "0" on; bit 5 says that another group follows, the last group
carries the sign, and from the fourth run on the difference to the run two before is written (pycocotools,
common/maskApi.c). It is decoded here: pycocotools 2.0.11 returns whatever lay in the memory where runs are too short,
and NumPy 2 warns of how it hands masks over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.files.fields import Field, Side
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.regions.coordinates import plain

_MOST_GROUPS = 7  # of 5 bits: a longer run exceeds every picture


@dataclass(frozen=True)
class Runs:
    """A run-length encoded mask [height,width]; `counts` as a list or in the text form."""

    width: int
    height: int
    counts: str | Sequence[int]

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def draw(self, width: int, height: int) -> Mask:
        """The mask at its own size, whatever the picture's; `GarMaskError` where the runs do not fit it."""
        counts = decode_counts(self.counts) if isinstance(self.counts, str) else self.counts
        return decode_runs(counts, self.width, self.height)


class _Rle(msgspec.Struct):
    counts: str | list[int]
    size: Any = None


def from_rle(rle: Mapping[str, Any]) -> Mask:
    """COCO's {"size": (height, width), "counts": text, bytes, list or array} as bool [height,width]; `GarMaskError`."""
    if not isinstance(rle, Mapping):
        raise GarMaskError(f'a run-length encoding is {{"size": …, "counts": …}}, not {type(rle).__name__}')
    runs = read_runs(Field("run-length encoding", plain(dict(rle))))
    return runs.draw(runs.width, runs.height)


def read_runs(field: Field) -> Runs:
    """The runs that an object {"size": [height, width], "counts": text or list} holds."""
    counts = field.to(_Rle).counts
    height, width = field["size"].to(tuple[Side, Side], "[height, width]")
    return Runs(int(width), int(height), counts)


def decode_counts(text: str) -> list[int]:
    """The runs that COCO's text form stands for; `GarMaskError` where it is none."""
    counts: list[int] = []
    value = groups = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or groups == _MOST_GROUPS:
            raise GarMaskError("its counts are not COCO run lengths")
        value |= (code & 31) << 5 * groups
        groups += 1
        if code & 32:
            continue
        if code & 16:
            value -= 1 << 5 * groups
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = groups = 0
    if groups:
        raise GarMaskError("its counts end in the middle of a run")
    return counts


def decode_runs(counts: Sequence[int], width: int, height: int) -> Mask:
    """Run lengths as bool [height,width]; `GarMaskError` where they do not add up to that."""
    checked_size(width, height)
    if any(count < 0 for count in counts):
        raise GarMaskError("its counts have a negative run")
    if sum(counts) != width * height:
        raise GarMaskError(f"its counts cover {sum(counts)} pixels, its size {width}x{height} has {width * height}")
    marked = np.arange(len(counts)) % 2 == 1
    return np.repeat(marked, counts).reshape(width, height).T


def checked_size(width: int, height: int) -> tuple[int, int]:
    """The size, unless it would fill the memory; nothing of it is allocated before this."""
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise GarMaskError(f"its size {width}x{height} is over {Image.MAX_IMAGE_PIXELS} pixels")
    return width, height
