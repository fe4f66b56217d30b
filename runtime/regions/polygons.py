"""Outlines as masks: COCO's polygons and labelme's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.files.fields import Field
from gar_edge.runtime.regions.cues import FURTHEST
from gar_edge.runtime.regions.rle import Mask, checked_size


@dataclass(frozen=True)
class Polygons:
    """Outlines (x1, y1, x2, y2, …; pixels) that together make one region of a picture of `size` (width, height).

    Without a size the outlines are the asked picture's pixels.
    """

    outlines: Sequence[Sequence[float]]
    size: tuple[int, int] | None = None

    def draw(self, width: int, height: int) -> Mask:
        """The mask at its own size, or the picture's where it has none; `GarMaskError` where an outline is none."""
        filled = np.zeros(checked_size(*(self.size or (width, height)))[::-1], np.bool_)
        for outline in self.outlines:
            if len(outline) < 6 or len(outline) % 2:
                raise GarMaskError(
                    f"a polygon of {len(outline)} numbers; three points or more are needed, x and y each"
                )
            if not all(abs(at) < FURTHEST for at in outline):
                raise GarMaskError(f"a polygon leaves the range of ±{FURTHEST:.0f} pixels")
            filled |= fill_polygon(np.reshape(outline, (-1, 2)), *filled.shape[::-1])
        return filled


@dataclass(frozen=True)
class Circle:
    """A disc, as labelme has it: a centre and a point on its edge, pixels of a picture of `size` (or the asked one)."""

    centre: tuple[float, float]
    edge: tuple[float, float]
    size: tuple[int, int] | None

    def draw(self, width: int, height: int) -> Mask:
        width, height = checked_size(*(self.size or (width, height)))
        y, x = np.ogrid[0:height, 0:width]
        away = np.hypot(x + 0.5 - self.centre[0], y + 0.5 - self.centre[1])
        mask: Mask = away <= np.hypot(self.edge[0] - self.centre[0], self.edge[1] - self.centre[1])
        return mask


def from_polygons(outlines: Sequence[Sequence[float]], width: int, height: int) -> Mask:
    """Outlines (x1, y1, x2, y2, …; pixels) as one mask, bool [height,width]; `GarMaskError`."""
    return Polygons(outlines).draw(width, height)


def read_polygons(field: Field, size: tuple[int, int] | None) -> Polygons:
    """The region that a list of outlines marks in a picture of `size`."""
    return Polygons([outline.numbers("a number", int, float) for outline in field.items()], size)


def fill_polygon(points: NDArray[np.floating], width: int, height: int) -> Mask:
    """The pixels, as bool [height,width], whose centres the outline [n,2] (x, y) goes round, by the even-odd rule."""
    flips = np.zeros((height, width + 1), np.bool_)  # [y, x]: inside and outside change places from x on
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        first, last = np.clip(np.ceil(np.sort([y1, y2]) - 0.5), 0, height).astype(int)
        rows = np.arange(first, last)
        if len(rows):
            crossings = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
            flips[rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)] ^= True
    return np.logical_xor.accumulate(flips, axis=1)[:, :width]
