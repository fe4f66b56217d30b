"""A picture to normalised tiles, and regions to the tiles' mask channel, as the released processor does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.bundle.manifest import Preprocess
from gar_edge.runtime.images.resize import resize
from gar_edge.runtime.images.tiling import Grid, choose_grid


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
    pixels = _thumbnail_and_tiles(image, grid, spec.tile)
    return Tiles(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), grid, width, height)


def normalise(pixels: NDArray[np.uint8], spec: Preprocess, dtype: np.dtype[np.floating]) -> NDArray[np.floating]:
    """(value * rescale - mean) / std per channel: [T,3,h,w] uint8 -> [T,3,h,w] in the graph's float type."""
    mean = np.asarray(spec.mean, np.float64)[:, None, None]
    std = np.asarray(spec.std, np.float64)[:, None, None]
    scale = (spec.rescale / std).astype(np.float32)
    shift = (-mean / std).astype(np.float32)
    return (pixels.astype(np.float32) * scale + shift).astype(dtype, copy=False)


def cut_mask(masks: Mapping[int, NDArray[np.bool_]], grid: Grid, spec: Preprocess, no_region: int) -> NDArray[np.bool_]:
    """The union of the regions per tile, bool [T,tile,tile].

    The regions are painted as their prompt numbers on a map of `no_region`, the earlier winning, and that map goes
    through the picture's own bicubic resize as an 8-bit image: masked is what does not come out as `no_region`.
    That is how the model was trained; interpolation can leave single pixels inside a region unmasked.
    """
    first = next(iter(masks.values()))
    painted = np.full(first.shape, no_region, np.uint8)
    for number, mask in masks.items():
        painted[mask & (painted == no_region)] = number
    tiles = _thumbnail_and_tiles(painted[..., None], grid, spec.tile)[..., 0]
    return np.minimum(tiles, no_region) != no_region


def _thumbnail_and_tiles(image: NDArray[np.uint8], grid: Grid, tile: int) -> NDArray[np.uint8]:
    """[H,W,C] -> [T,tile,tile,C]."""
    columns, rows = grid
    thumbnail = resize(image, tile, tile)
    canvas = thumbnail if grid == (1, 1) else resize(image, columns * tile, rows * tile)
    cut = canvas.reshape(rows, tile, columns, tile, -1).transpose(0, 2, 1, 3, 4)
    return np.concatenate([thumbnail[None], cut.reshape(-1, tile, tile, image.shape[2])])
