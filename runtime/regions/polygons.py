"""Outlines as masks, by COCO's own rule: pycocotools fills them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.files.fields import Field
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.regions.coordinates import checked, fractions_meant, plain
from gar_edge.runtime.regions.rle import checked_size, decode_counts, decode_runs

_LONGEST = 4e6  # pixels round an outline: pycocotools takes 80 bytes for each

Outline = Sequence[float] | Sequence[Sequence[float]] | NDArray[Any]


@dataclass(frozen=True)
class Polygons:
    """Outlines that together make one region of a picture of `size` (width, height).

    Each is x1, y1, x2, y2, … or points (x, y), as a list or an array, OpenCV's [n,1,2] too: pixels, or `fractions` of
    the sides (None: by their form). Without a size they are the asked picture's. `GarMaskError` where one is none.
    """

    outlines: Sequence[Outline]
    size: tuple[int, int] | None = None
    fractions: bool | None = None

    def __post_init__(self) -> None:
        outlines = self.outlines
        if isinstance(outlines, np.ndarray) and outlines.ndim in (2, 3) and outlines.shape[-1] == 2:
            outlines = [outlines]  # one outline's points
        listed = plain(outlines)
        if not isinstance(listed, list):
            raise GarMaskError(f"outlines must be a list of lists of numbers, not {type(outlines).__name__}")
        flat = tuple(_flat(one) for one in listed)
        object.__setattr__(self, "outlines", flat)
        if self.fractions is None:
            object.__setattr__(self, "fractions", fractions_meant([at for one in flat for at in one]))

    def draw(self, width: int, height: int) -> Mask:
        """The mask at its own size, or the picture's where it has none."""
        from pycocotools import mask as coco

        wide, high = checked_size(*(self.size or (width, height)))
        scale = np.array((wide, high) if self.fractions else (1, 1), np.float64)
        scaled = [(np.reshape(one, (-1, 2)) * scale) for one in self.outlines]
        for points in scaled:
            if np.abs(points - np.roll(points, 1, axis=0)).sum() > _LONGEST:
                raise GarMaskError(f"a polygon is longer than {_LONGEST:.0f} pixels")
        if not scaled:
            return np.zeros((high, wide), np.bool_)
        # Lists of lists: an array of corners would be taken for boxes.
        packed = coco.frPyObjects([points.ravel().tolist() for points in scaled], high, wide)
        return decode_runs(decode_counts(coco.merge(packed)["counts"].decode("ascii")), wide, high)


def from_polygons(outlines: Sequence[Outline], width: int, height: int) -> Mask:
    """Outlines, as `Polygons` takes them, as one mask, bool [height,width]; `GarMaskError`."""
    return Polygons(outlines).draw(width, height)


def read_polygons(field: Field, size: tuple[int, int] | None) -> Polygons:
    """The region that a list of outlines marks in a picture of `size`; one outline's numbers alone will do."""
    outlines = list(field.items())
    if outlines and all(type(one.value) in (int, float) for one in outlines):
        outlines = [field]
    for outline in outlines:
        nested = isinstance(outline.value, list) and any(isinstance(one, list) for one in outline.value)
        for numbers in outline.items() if nested else (outline,):
            numbers.to(list[int | float])
    return Polygons([outline.value for outline in outlines], size)


def _flat(outline: Any) -> tuple[float, ...]:
    """x1, y1, x2, y2, …; `GarMaskError` for anything but three points and more."""
    flat = _numbers(outline)
    if len(flat) < 6 or len(flat) % 2:
        raise GarMaskError(f"a polygon of {len(flat)} numbers; three points or more are needed, x and y each")
    return tuple(checked("polygon", flat))


def _numbers(outline: Any) -> list[Any]:
    if not isinstance(outline, list):
        raise GarMaskError(f"a polygon is {type(outline).__name__}, where a list of numbers is needed")
    while (
        outline
        and all(isinstance(one, list) for one in outline)
        and (len(outline) == 1 or all(len(one) == 2 or (len(one) == 1 and isinstance(one[0], list)) for one in outline))
    ):
        outline = [at for one in outline for at in one]
    return outline
