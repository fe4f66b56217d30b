"""Samples to the model's inputs, by the runtime's own preprocessing and prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gar_edge.calibration.samples import Sample
from gar_edge.runtime.bundle.manifest import Preprocess
from gar_edge.runtime.errors import GarMaskError, GarPromptError
from gar_edge.runtime.generate.prompt import PromptBuilder
from gar_edge.runtime.images.preprocess import cut_mask, cut_tiles
from gar_edge.runtime.images.shape import Extent, mask_box
from gar_edge.runtime.images.tiling import Grid


@dataclass(frozen=True)
class Prepared:
    """One sample as the graphs take it.

    pixels [T,3,h,w] uint8, mask [T,h,w] bool, grid (columns, rows), boxes: one per region, ids [S] of the prompt,
    replay_tokens: the token under which each region's features are replayed.
    """

    name: str
    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    grid: Grid
    boxes: tuple[Extent, ...]
    ids: NDArray[np.int64]
    replay_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Preparation:
    """What preparing needs to know of a model. max_tiles None keeps the limit of `spec`."""

    spec: Preprocess
    prompts: PromptBuilder
    replay_tokens: tuple[int, ...]
    context: int
    max_tiles: int | None = None

    def prepare(self, samples: Iterable[Sample], skipped: list[str]) -> Iterator[Prepared]:
        """The samples that this model can take, one at a time; the others are noted in `skipped`."""
        for sample in samples:
            try:
                yield self._prepare(sample)
            except (GarMaskError, GarPromptError) as error:
                skipped.append(f"{sample.name}: {error}")

    def _prepare(self, sample: Sample) -> Prepared:
        masks = dict(sorted(sample.masks.items()))
        self.prompts.check(sample.question, list(masks))
        boxes = tuple(mask_box(mask) for mask in masks.values())
        tiles = cut_tiles(sample.image, self.spec, self.max_tiles)
        ids = self.prompts.build(sample.question, list(masks), len(tiles))
        if len(ids) >= self.context:
            raise GarPromptError(f"its prompt of {len(ids)} tokens does not fit into the model's {self.context}")
        return Prepared(
            name=sample.name,
            pixels=tiles.pixels,
            mask=cut_mask(masks, tiles.grid, self.spec, len(self.replay_tokens)),
            grid=tiles.grid,
            boxes=boxes,
            ids=ids,
            replay_tokens=tuple(self.replay_tokens[number] for number in masks),
        )
