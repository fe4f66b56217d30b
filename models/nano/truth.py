"""What is true of a scene, and where the truth is clear enough to ask.

Near-ties are left out: places closer than `PLACE_MARGIN` to a border between bands, directions with centres less than
`DIRECTION_MARGIN` apart, comparisons within one size class, neighbours less than `NEIGHBOUR_RATIO` times nearer than
the next one, and regions of which less than `VISIBLE` can be seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gar_edge.models.nano.scenes import Mask, Scene, Thing
from gar_edge.models.nano.vocabulary import PLACES, SIZES

BANDS = (0.39, 0.61)  # where the first and the second band end, fractions of the image
PLACE_MARGIN = 0.025
DIRECTION_MARGIN = 0.12
NEIGHBOUR_RATIO = 1.3
VISIBLE = 0.7

Box = tuple[float, float, float, float]


def mask_box(mask: Mask) -> Box:
    """x1, y1, x2, y2: the mask's extreme pixels, inclusive, as fractions of the image."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, columns[-1] / width, rows[-1] / height


@dataclass(frozen=True)
class Truth:
    """Facts about one scene's things, by their index."""

    scene: Scene

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        return tuple(mask_box(mask) if mask.any() else (0.0, 0.0, 0.0, 0.0) for mask in self.scene.masks)

    @cached_property
    def centres(self) -> tuple[tuple[float, float], ...]:
        """Centres of the visible boxes, fractions of the image."""
        return tuple(((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in self.boxes)

    def thing(self, index: int) -> Thing:
        return self.scene.things[index]

    @cached_property
    def clear(self) -> tuple[int, ...]:
        """Things that can be asked about: enough of them is seen."""
        return tuple(i for i, share in enumerate(self.scene.visible) if share >= VISIBLE)

    def place(self, index: int) -> str | None:
        """Where a thing lies; None near a border between two places."""
        bands = []
        for at in self.centres[index]:
            if any(abs(at - border) < PLACE_MARGIN for border in BANDS):
                return None
            bands.append(sum(at > border for border in BANDS))
        column, row = bands
        return PLACES[row][column]

    def neighbour(self, index: int) -> int | None:
        """The nearest other thing, by centres, in pixels and in fractions of the image alike; None on a near-tie."""
        scene = self.scene
        nearest = set()
        for scale_x, scale_y in ((scene.width, scene.height), (1.0, 1.0)):
            x, y = self.centres[index]
            distances = sorted(
                (math.hypot((x - other[0]) * scale_x, (y - other[1]) * scale_y), j)
                for j, other in enumerate(self.centres)
                if j != index
            )
            if len(distances) > 1 and distances[0][0] * NEIGHBOUR_RATIO > distances[1][0]:
                return None
            nearest.add(distances[0][1])
        return nearest.pop() if len(nearest) == 1 else None

    def offset(self, first: int, second: int, axis: int) -> float | None:
        """Centre of `first` minus that of `second` along an axis (0: x, 1: y); None on a near-tie."""
        difference = self.centres[first][axis] - self.centres[second][axis]
        return difference if abs(difference) >= DIRECTION_MARGIN else None

    def larger(self, first: int, second: int) -> bool | None:
        """Whether `first` is of the larger size; None where both are of one size."""
        a, b = (SIZES.index(self.thing(i).size) for i in (first, second))
        return None if a == b else a > b
