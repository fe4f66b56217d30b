"""gar-nano's scenes as a camera sees them: one thing moves over a ground that stays, its mask and colour known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gar_edge.models.nano import shapes
from gar_edge.models.nano.scenes import Scene, Thing, draw_scene
from gar_edge.models.nano.vocabulary import RGB

QUESTION = "What colour is <Prompt0>?"


@dataclass(frozen=True)
class View:
    """A frame: RGB [H,W,3], the mask [H,W] of the thing that moves, and its box left, upper, right, lower in pixels."""

    image: np.ndarray
    mask: np.ndarray
    box: tuple[int, int, int, int]


class MovingScene:
    """A plain thing of one of gar-nano's colours on grey, on a closed path; every frame is a function of its number."""

    def __init__(self, seed: int, *, width: int = 200, height: int = 150, period: int = 90) -> None:
        random = np.random.default_rng(seed)
        scene: Scene = draw_scene(random)
        self.thing: Thing = replace(scene.things[0], fill="plain", size="medium", diameter=0.31 * height)
        self.width, self.height, self.period = width, height, period
        grey = float(random.uniform(90, 160))
        self._ground = np.full((height, width, 3), grey, np.float32)
        self._phase = float(random.uniform(0, 2 * np.pi))

    @property
    def colour(self) -> str:
        """What is to be answered."""
        return self.thing.colour

    def view(self, number: int) -> View:
        """Frame `number`."""
        turn = 2 * np.pi * number / self.period + self._phase
        centre = (self.width * (0.5 + 0.28 * np.cos(turn)), self.height * (0.5 + 0.24 * np.sin(turn)))
        placed = shapes.placed(self.thing.shape, centre, self.thing.diameter, self.thing.angle)
        cover = shapes.coverage(placed, self.height, self.width)
        colour = np.array(RGB[self.thing.colour], np.float32)
        image = self._ground + cover[..., None] * (colour - self._ground)
        mask = cover >= 0.5
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        return View(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask, box)
