"""A picture to tiles, and regions to the tiles' mask channel, as the released processor does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.bundle.manifest import Preprocess
from gar_edge.runtime.images.resize import Block, Span, blocks, resize_part
from gar_edge.runtime.images.tiling import Grid, choose_grid

NO_GRID: Grid = (0, 0)  # of a picture that is one tile, its thumbnail
Window = tuple[Span, Span]  # of columns, of rows


class Tiles:
    """How an RGB picture [H,W,3] is cut into tiles: the thumbnail first, then `grid` (columns, rows) row-major.

    windows: what of the resized picture each tile is, for engines that cut tiles themselves.
    """

    def __init__(self, image: NDArray[np.uint8], grid: Grid, tile: int) -> None:
        """tile: samples along a tile's side."""
        self.image = image
        self.grid = grid
        self.windows = _windows(image.shape[1], image.shape[0], grid, tile)
        self._pixels: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, image: NDArray[np.uint8], spec: Preprocess, max_tiles: int | None = None) -> Tiles:
        """The released processor's grid for RGB [H,W,3]; `max_tiles` overrides the bundle's limit."""
        height, width = image.shape[:2]
        limit = spec.max_tiles if max_tiles is None else max_tiles
        return cls(image, choose_grid(width, height, spec.tile, limit), spec.tile)

    @classmethod
    def whole(cls, image: NDArray[np.uint8], spec: Preprocess) -> Tiles:
        """RGB [H,W,3] as one tile: all of it, its aspect ratio not kept."""
        return cls(image, NO_GRID, spec.tile)

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def nbytes(self) -> int:
        """Of the picture and, where they have been cut here, of the tiles."""
        return self.image.nbytes + (0 if self._pixels is None else self._pixels.nbytes)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The tiles, uint8 [T,3,tile,tile], cut on the host if they have not been yet."""
        if self._pixels is None:
            width, height = (span.end - span.begin for span in self.windows[0])
            pixels = np.empty((len(self), self.image.shape[2], height, width), np.uint8)
            for tile, (across, down) in zip(pixels, self.windows, strict=True):
                tile[...] = resize_part(self.image, blocks(*across), blocks(*down))
            self._pixels = pixels
        return self._pixels

    def cut(self) -> Tiles:
        """These, their pixels cut now, in the caller's time."""
        self._pixels = self.pixels
        return self


def cut_tiles(image: NDArray[np.uint8], spec: Preprocess, max_tiles: int | None = None) -> Tiles:
    """`Tiles.of` a picture, cut on the host."""
    return Tiles.of(image, spec, max_tiles).cut()


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
            left, top = window[0].begin, window[1].begin
            into = tile[down[0].begin - top : down[-1].end - top, across[0].begin - left : across[-1].end - left]
            part = resize_part(painted[..., None], across, down)[0]
            np.less(part, no_region, out=into)
    return tiles


def _windows(width: int, height: int, grid: Grid, tile: int) -> tuple[Window, ...]:
    """Every tile's columns and rows: the thumbnail's, then the canvas' own, row-major."""
    thumbnail = Span(width, tile, 0, tile), Span(height, tile, 0, tile)
    across, down = (
        [Span(size, count * tile, index * tile, (index + 1) * tile) for index in range(count)]
        for size, count in ((width, grid[0]), (height, grid[1]))
    )
    return (thumbnail, *((columns, rows) for rows in down for columns in across))


def _reading(span: Span, marked: NDArray[np.int64]) -> Sequence[Block]:
    """The neighbouring blocks that read anything between the first and the last of these source samples."""
    if not len(marked):
        return ()
    return [block for block in blocks(*span) if block.first <= marked[-1] and block.last > marked[0]]
