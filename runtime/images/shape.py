"""Masks and pictures of one shape: what may be resized, what a picture's EXIF did, and a mask's extent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError

Mask = NDArray[np.bool_]
Extent = tuple[float, float, float, float]

_SIDES_SWAPPED = range(5, 9)  # EXIF orientations that turn by a quarter
_WAYS = {2: "mirrored", 3: "turned by 180°", 4: "mirrored", 5: "mirrored and turned", 7: "mirrored and turned"}


@dataclass(frozen=True)
class Turn:
    """What a file's EXIF did to its picture: the size in pixels as stored, and the orientation, 2 to 8."""

    width: int
    height: int
    orientation: int

    def __str__(self) -> str:
        return f"{_WAYS.get(self.orientation, 'turned')} by its EXIF, its stored size is {self.width}x{self.height}"

    @property
    def shows(self) -> bool:
        """Whether a mask of the stored pixels is of another shape than the upright picture."""
        stored = (self.width, self.height)
        return self.orientation in _SIDES_SWAPPED and not same_shape(stored, stored[::-1])


def same_shape(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) have one side ratio: one is the other scaled, each side rounded either way."""
    return abs(first[0] * second[1] - first[1] * second[0]) <= max(*first, *second)


def check_shape(size: tuple[int, int], picture: tuple[int, int], turn: Turn | None = None) -> None:
    """`GarMaskError` where a mask of `size` (width, height) cannot be the whole picture's: why, and what to do."""
    if same_shape(size, picture):
        return
    (width, height), (wide, high) = size, picture
    if turn is not None and same_shape(size, (turn.width, turn.height)):
        why = f"the picture is {turn}: turn the mask the same way, or give the picture as a Pillow image, not turned"
    elif same_shape(size, (high, wide)):
        why = "its sides are swapped: give height and width in the right order, or turn it"
    elif width == height or min(width / wide, height / high) >= 1 or not (width % 32 or height % 32):
        why = "it looks padded (letterboxed) or cropped: cut off the padding, and scale it to the picture"
    else:
        why = "it is not of this picture, or only of a part of it: bring it to the picture's size"
    raise GarMaskError(f"mask is {width}x{height}, the picture {wide}x{high}, of another shape; {why}")


def fit_mask(mask: Mask, width: int, height: int) -> Mask:
    """The mask resized to width x height by nearest neighbour, whatever its shape."""
    rows = (np.arange(height) * mask.shape[0]) // height
    columns = (np.arange(width) * mask.shape[1]) // width
    return mask[rows[:, None], columns]


def match_mask(mask: Mask, width: int, height: int, turn: Turn | None = None) -> Mask:
    """The mask resized to a picture of the same shape; `GarMaskError` where the shapes differ."""
    size = (mask.shape[1], mask.shape[0])
    if size == (width, height):
        return mask
    check_shape(size, (width, height), turn)
    return fit_mask(mask, width, height)


def pixel_box(mask: Mask) -> list[int]:
    """left, upper, right, lower in pixels, as `Box` takes them, of a mask with a pixel in it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(at) for at in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


def mask_box(mask: Mask) -> Extent:
    """(x_min/W, y_min/H, x_max/W, y_max/H) of the extreme pixels, inclusive, as the released code has it."""
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        raise GarMaskError("mask is empty: no pixel is set; mark the region with non-zero pixels")
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, columns[-1] / width, rows[-1] / height
