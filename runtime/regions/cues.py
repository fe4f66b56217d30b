"""Cues: boxes, points and scribbles, which say where a region is but not where it ends.

Coordinates count from the picture's upper left corner, x to the right and y down, in pixels (the picture spans 0…width
and 0…height, the first pixel 0…1) or in fractions of the sides.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.loading import ImageLike, fit_mask, load_colours

Bounds = tuple[int, int, int, int]
Pixels = NDArray[np.intp]

FURTHEST = 1e6  # pixels: beyond it a coordinate is an error, not a place
NONE: Pixels = np.zeros((0, 2), np.intp)
_STRONG = 128  # of 255: paler or thinner than this is a stroke's blurred edge


@dataclass(frozen=True)
class Marks:
    """A cue in the pixels of one picture.

    bounds: x1, y1, x2, y2 as slices have them (columns x1 to x2-1), at least one pixel, or None. inside, outside:
    pixels [n,2] (x, y) that do and do not belong to the region.
    """

    bounds: Bounds | None
    inside: Pixels
    outside: Pixels


@dataclass(frozen=True)
class Box:
    """The edges of a region: left, upper, right, lower; `fractions` of the sides rather than pixels.

    `GarMaskError` where left and right or upper and lower are the wrong way round.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    fractions: bool = False

    def __post_init__(self) -> None:
        _check_range("box", (self.x1, self.y1, self.x2, self.y2))
        if self.x2 <= self.x1 or self.y2 <= self.y1:
            raise GarMaskError(f"box {self} has no extent; its order is left,upper,right,lower")

    def __str__(self) -> str:
        return ",".join(f"{at:g}" for at in (self.x1, self.y1, self.x2, self.y2))

    def bounds(self, width: int, height: int) -> Bounds:
        """The pixels whose centres it holds, at least one; what reaches beyond the picture is cut off, with a warning.

        `GarMaskError` where nothing of it lies in the picture.
        """
        across, down = (width, height) if self.fractions else (1, 1)
        x1, y1, x2, y2 = self.x1 * across, self.y1 * down, self.x2 * across, self.y2 * down
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise GarMaskError(f"box {self} lies outside the picture, which is {width}x{height}")
        if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            warnings.warn(f"box {self} reaches beyond the picture, which is {width}x{height}: cut off", stacklevel=4)
        left, right = _span(x1, x2, width)
        upper, lower = _span(y1, y2, height)
        return left, upper, right, lower

    def marks(self, width: int, height: int) -> Marks:
        return Marks(self.bounds(width, height), NONE, NONE)


@dataclass(frozen=True)
class Points:
    """Points (x, y) inside a region, points that are not, and the box it lies in where that is known.

    At least one inside, or a box. `fractions` of the sides rather than pixels; the box says so for itself.
    """

    inside: Sequence[tuple[float, float]] = ()
    outside: Sequence[tuple[float, float]] = ()
    box: Box | None = None
    fractions: bool = False

    def __post_init__(self) -> None:
        if not len(self.inside) and self.box is None:
            raise GarMaskError("no point lies inside the region; give one at least, or a box")
        for point in (*self.inside, *self.outside):
            if len(point) != 2:
                raise GarMaskError(f"a point of {len(point)} numbers; x and y are needed")
            _check_range("point", point)
            if self.fractions and not all(0 <= at <= 1 for at in point):
                raise GarMaskError(f"point {_point(point)} lies outside the picture; fractions reach from 0.0 to 1.0")

    def marks(self, width: int, height: int) -> Marks:
        """`GarMaskError` where a point lies outside the picture, or outside the box but inside the region."""
        bounds = self.box.bounds(width, height) if self.box else None
        inside, outside = self._pixels(self.inside, width, height), self._pixels(self.outside, width, height)
        if bounds is not None:
            x1, y1, x2, y2 = bounds
            for point, (x, y) in zip(self.inside, inside, strict=True):
                if not (x1 <= x < x2 and y1 <= y < y2):
                    raise GarMaskError(f"point {_point(point)} lies outside the region's box {self.box}")
        return Marks(bounds, inside, outside)

    def _pixels(self, points: Sequence[tuple[float, float]], width: int, height: int) -> Pixels:
        across, down = (width, height) if self.fractions else (1, 1)
        pixels = NONE.copy()
        for point in points:
            x, y = point[0] * across, point[1] * down
            if not self.fractions and not (0 <= x < width and 0 <= y < height):
                raise GarMaskError(f"point {_point(point)} lies outside the picture, which is {width}x{height}")
            pixels = np.append(pixels, [[min(int(x), width - 1), min(int(y), height - 1)]], axis=0)
        return pixels


@dataclass(frozen=True)
class Scribble:
    """Strokes in a picture of their own, on black or transparent ground: red ones lie outside, all others inside."""

    image: ImageLike

    def marks(self, width: int, height: int) -> Marks:
        """`GarMaskError` where there is no stroke inside, or the file is no image."""
        colours = load_colours(self.image).astype(np.int16)
        strong = (colours[..., :3].max(axis=2) >= _STRONG) & (colours[..., 3] >= _STRONG)
        red = strong & (colours[..., 0] > 2 * colours[..., 1:3].max(axis=2))
        inside, outside = (_where(fit_mask(strokes, width, height)) for strokes in (strong & ~red, red))
        if not len(inside):
            raise GarMaskError("no stroke marks the region: draw on black or transparent ground, in any colour but red")
        return Marks(None, inside, outside)


Cue = Box | Points | Scribble


def spaced(pixels: Pixels, most: int) -> Pixels:
    """At most this many of the pixels, evenly out of their order."""
    return pixels[np.unique(np.linspace(0, len(pixels) - 1, min(most, len(pixels))).astype(int))]


def _check_range(what: str, numbers: Sequence[float]) -> None:
    if not all(abs(number) < FURTHEST for number in numbers):  # nor is NaN
        raise GarMaskError(f"a {what}'s coordinate leaves the range of ±{FURTHEST:.0f} pixels")


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """First pixel and end of those with their centre in low…high; the middle one where there is none."""
    first, end = max(math.ceil(low - 0.5), 0), min(math.ceil(high - 0.5), length)
    if first < end:
        return first, end
    middle = min(max(int((low + high) / 2), 0), length - 1)
    return middle, middle + 1


def _where(strokes: NDArray[np.bool_]) -> Pixels:
    return np.argwhere(strokes)[:, ::-1]


def _point(point: Sequence[float]) -> str:
    return ",".join(f"{at:g}" for at in point)
