"""A picture to tiles, and regions to the tiles' mask channel, as the released processor does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.bundle.manifest import Preprocess
from gar_edge.runtime.images.resize import Block, blocks, resize_part
from gar_edge.runtime.images.tiling import Grid, choose_grid

NO_GRID: Grid = (0, 0)  # of a picture that is one tile, its thumbnail
Window = tuple[Sequence[Block], Sequence[Block]]  # of columns, of rows


@dataclass(frozen=True)
class Tiles:
    """A picture cut up: `pixels` [T,3,tile,tile] uint8, the thumbnail first, then `grid` (columns, rows) row-major."""

    pixels: NDArray[np.uint8]
    grid: Grid
    width: int  # of the picture, in pixels
    height: int


def cut_tiles(image: NDArray[np.uint8], spec: Preprocess, max_tiles: int | None = None) -> Tiles:
    """Resize RGB [H,W,3] to its canvas and cut it; `max_tiles` overrides the bundle's limit."""
    height, width = image.shape[:2]
    grid = choose_grid(width, height, spec.tile, spec.max_tiles if max_tiles is None else max_tiles)
    return _cut(image, grid, spec)


def cut_frame(image: NDArray[np.uint8], spec: Preprocess) -> NDArray[np.uint8]:
    """RGB [H,W,3] as one tile [3,tile,tile]: all of it, its aspect ratio not kept."""
    return _cut(image, NO_GRID, spec).pixels[0]


def _cut(image: NDArray[np.uint8], grid: Grid, spec: Preprocess) -> Tiles:
    height, width = image.shape[:2]
    windows = _windows(width, height, grid, spec.tile)
    pixels = np.empty((len(windows), image.shape[2], spec.tile, spec.tile), np.uint8)
    for tile, (across, down) in zip(pixels, windows, strict=True):
        tile[...] = resize_part(image, across, down)
    return Tiles(pixels, grid, width, height)


def cut_mask(masks: Mapping[int, NDArray[np.bool_]], grid: Grid, spec: Preprocess, no_region: int) -> NDArray[np.bool_]:
    """The union of the regions per tile, bool [T,tile,tile]; the tiles that no region touches are false throughout.

    The regions are painted as their prompt numbers on a map of `no_region`, the earlier winning, and that map goes
    through the picture's own bicubic resize as an 8-bit image: masked is what does not come out as `no_region`.
    That is how the model was trained; interpolation can leave single pixels inside a region unmasked.
    """
    height, width = next(iter(masks.values())).shape
    painted = np.full((height, width), no_region, np.uint8)
    for number, mask in reversed(list(masks.items())):
        np.copyto(painted, np.uint8(number), where=mask)
    marked = painted != no_region
    columns, rows = np.flatnonzero(marked.any(axis=0)), np.flatnonzero(marked.any(axis=1))
    windows = _windows(width, height, grid, spec.tile)
    tiles = np.zeros((len(windows), spec.tile, spec.tile), np.bool_)
    for tile, window in zip(tiles, windows, strict=True):
        across, down = _reading(window[0], columns), _reading(window[1], rows)
        if across and down:  # elsewhere the map is even, and a resized even map stays as it is
            left, top = window[0][0].begin, window[1][0].begin
            into = tile[down[0].begin - top : down[-1].end - top, across[0].begin - left : across[-1].end - left]
            part = resize_part(painted[..., None], across, down)[0]
            np.less(part, no_region, out=into)
    return tiles


def _windows(width: int, height: int, grid: Grid, tile: int) -> list[Window]:
    """Blocks of columns and of rows of every tile: the thumbnail's, then the canvas' own, row-major."""
    thumbnail = blocks(width, tile, 0, tile), blocks(height, tile, 0, tile)
    across, down = (
        [blocks(size, count * tile, index * tile, (index + 1) * tile) for index in range(count)]
        for size, count in ((width, grid[0]), (height, grid[1]))
    )
    return [thumbnail, *((columns, rows) for rows in down for columns in across)]


def _reading(window: Sequence[Block], marked: NDArray[np.int64]) -> Sequence[Block]:
    """The neighbouring blocks that read anything between the first and the last of these source samples."""
    if not len(marked):
        return ()
    return [block for block in window if block.first <= marked[-1] and block.last > marked[0]]
