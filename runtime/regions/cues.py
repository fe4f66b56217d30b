"""Cues: boxes, points and scribbles, which say where a region is but not where it ends.

Coordinates are those of `coordinates`: pixels, or fractions of the sides.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.loading import ImageLike
from gar_edge.runtime.images.mask_images import load_colours
from gar_edge.runtime.images.shape import Mask, match_mask
from gar_edge.runtime.regions.coordinates import checked, fractions_meant, plain

Bounds = tuple[int, int, int, int]
Pixels = NDArray[np.intp]

NONE: Pixels = np.zeros((0, 2), np.intp)
_STRONG = 128  # of 255: paler or thinner than this is a stroke's blurred edge
_GROUND = 16  # of 255: darker or clearer than this is no stroke at all
_LEAST_GROUND = 0.5  # of a scribble: less is a photograph, or strokes on a ground of their own


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
    """The edges of a region: left, upper, right, lower; pixels, or `fractions` of the sides (None: by their form).

    size: (width, height) of the picture that the pixels were counted in, where it is known. `GarMaskError` where left
    and right or upper and lower are the wrong way round.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    fractions: bool | None = None
    size: tuple[int, int] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        corners = checked("box", (self.x1, self.y1, self.x2, self.y2))
        for name, at in zip(("x1", "y1", "x2", "y2"), corners, strict=True):
            object.__setattr__(self, name, at)
        if self.fractions is None:
            object.__setattr__(self, "fractions", fractions_meant(corners))
        if self.x2 <= self.x1 or self.y2 <= self.y1:
            raise GarMaskError(f"box {self} has no extent; its order is left,upper,right,lower")

    def __str__(self) -> str:
        return ",".join(f"{at:g}" for at in (self.x1, self.y1, self.x2, self.y2))

    def bounds(self, width: int, height: int) -> Bounds:
        """The pixels whose centres it holds, at least one; what reaches beyond the picture is cut off, with a warning.

        `GarMaskError` where nothing of it lies in the picture.
        """
        across, down = _scale(self.fractions, self.size, width, height)
        x1, y1, x2, y2 = self.x1 * across, self.y1 * down, self.x2 * across, self.y2 * down
        if not self.fractions and min(self.x1, self.y1) >= 0 and max(self.x2, self.y2) <= 1:
            warnings.warn(f"box {self} is the first pixel; fractions of the sides are written 1.0", stacklevel=4)
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
class BoxMask:
    """A box that is the region itself: nothing is cut out of it."""

    box: Box

    @property
    def size(self) -> tuple[int, int] | None:
        return self.box.size

    def draw(self, width: int, height: int) -> Mask:
        """Bool [height,width], true inside; `GarMaskError` where nothing of it lies in the picture."""
        return filled(self.box.bounds(width, height), width, height)


@dataclass(frozen=True)
class Points:
    """Points (x, y) inside a region, points that are not, and the box it lies in where that is known.

    At least one inside, or a box. Pixels, or `fractions` of the sides (None: by their form); the box has its own.
    """

    inside: Sequence[tuple[float, float]] = ()
    outside: Sequence[tuple[float, float]] = ()
    box: Box | None = None
    fractions: bool | None = None

    def __post_init__(self) -> None:
        inside, outside = _checked_points(self.inside), _checked_points(self.outside)
        object.__setattr__(self, "inside", inside)
        object.__setattr__(self, "outside", outside)
        if not inside and self.box is None:
            raise GarMaskError("no point lies inside the region; give one at least, or a box")
        if self.fractions is None:
            object.__setattr__(
                self, "fractions", fractions_meant([at for point in (*inside, *outside) for at in point])
            )
        for point in (*inside, *outside):
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
        across, down = _scale(self.fractions, None, width, height)
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
        """`GarMaskError` where there is no stroke inside, or no ground, or the file is no image."""
        colours = load_colours(self.image).astype(np.int16)
        ground = (colours[..., :3].max(axis=2) <= _GROUND) | (colours[..., 3] <= _GROUND)
        if ground.mean() < _LEAST_GROUND:
            raise GarMaskError(
                f"{100 * float(1 - ground.mean()):.0f} % of the scribble is drawn on, as with strokes on white ground "
                "or on the picture itself; draw them on black or transparent ground"
            )
        strong = (colours[..., :3].max(axis=2) >= _STRONG) & (colours[..., 3] >= _STRONG)
        red = strong & (colours[..., 0] > 2 * colours[..., 1:3].max(axis=2))
        inside, outside = (_where(match_mask(strokes, width, height)) for strokes in (strong & ~red, red))
        if not len(inside):
            raise GarMaskError("no stroke marks the region: draw on black or transparent ground, in any colour but red")
        return Marks(None, inside, outside)


Cue = Box | Points | Scribble


def filled(bounds: Bounds, width: int, height: int) -> Mask:
    """Bool [height,width], true inside the bounds."""
    x1, y1, x2, y2 = bounds
    mask = np.zeros((height, width), np.bool_)
    mask[y1:y2, x1:x2] = True
    return mask


def spaced(pixels: Pixels, most: int) -> Pixels:
    """At most this many of the pixels, evenly out of their order."""
    return pixels[np.unique(np.linspace(0, len(pixels) - 1, min(most, len(pixels))).astype(int))]


def _checked_points(points: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    """Points as tuples of Python's numbers; arrays [n,2] too."""
    listed = plain(points)
    if not isinstance(listed, list) or not all(isinstance(point, list) for point in listed):
        raise GarMaskError("points must be a list of (x, y)")
    for point in listed:
        if len(point) != 2:
            raise GarMaskError(f"a point of {len(point)} numbers; x and y are needed")
    return tuple((x, y) for x, y in (checked("point", point) for point in listed))


def _scale(fractions: bool | None, size: tuple[int, int] | None, width: int, height: int) -> tuple[float, float]:
    """What brings coordinates to the pixels of a picture."""
    if fractions:
        return width, height
    return (1, 1) if size is None else (width / size[0], height / size[1])


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
