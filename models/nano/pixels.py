"""Pixels and masks as the exported pipeline prepares them, for training: grid of tiles, bicubic canvas, thumbnail."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
BACKGROUND = 5  # the prompt-id map's value outside every region


@lru_cache(maxsize=4096)
def choose_grid(width: int, height: int, tile: int, max_tiles: int) -> tuple[int, int]:
    """Columns and rows of tiles by the released rule."""
    groups: dict[float, list[tuple[int, int]]] = {}
    for count in range(max_tiles, 0, -1):
        for columns in range(1, count + 1):
            if count % columns == 0:
                groups.setdefault(columns / (count // columns), []).append((columns, count // columns))
    candidates = [grid for group in groups.values() for grid in group]
    holding = [(c, r) for c, r in candidates if c * tile >= width and r * tile >= height]
    if holding:
        best, best_edge = holding[0], -1.0
        for columns, rows in holding:
            scale = min(columns * tile / width, rows * tile / height)
            edge = scale * (width if height > width else height)
            if edge >= best_edge - 1e-9:
                best, best_edge = (columns, rows), edge
        return best
    ratio = width / height
    if width >= height:
        nearest = max(r for r in groups if r <= ratio)
        return max(groups[nearest], key=lambda grid: grid[0])
    nearest = min((r for r in groups if r > ratio), key=lambda r: abs(1 / r - 1 / ratio))
    return max(groups[nearest], key=lambda grid: grid[1])


@lru_cache(maxsize=4096)
def bicubic_weights(source: int, target: int) -> NDArray[np.float32]:
    """Antialiased bicubic resampling, a = -0.5, as a matrix [target, source] with rows that sum to one."""
    scale = source / target
    stretch = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    x = np.abs((np.arange(source)[None] + 0.5 - centres[:, None]) / stretch)
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def resize(image: Bytes, width: int, height: int) -> Bytes:
    """[H,W] or [H,W,C] to height x width: two matrix products, one rounding."""
    source_height, source_width = image.shape[:2]
    planes = image.reshape(source_height, -1).astype(np.float32)
    rows = (bicubic_weights(source_height, height) @ planes).reshape(height, source_width, -1)
    out = np.matmul(bicubic_weights(source_width, width), rows)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8).reshape(height, width, *image.shape[2:])


def tiles_of(image: Bytes, grid: tuple[int, int], tile: int) -> Bytes:
    """Thumbnail and tiles, row-major: [1 + columns*rows, tile, tile, ...]."""
    columns, rows = grid
    canvas = resize(image, columns * tile, rows * tile)
    split = canvas.reshape(rows, tile, columns, tile, *image.shape[2:]).swapaxes(1, 2)
    return np.concatenate([resize(image, tile, tile)[None], split.reshape(-1, tile, tile, *image.shape[2:])])


def prompt_map(masks: dict[int, NDArray[np.bool_]]) -> Bytes:
    """The prompt-id map [H,W]: k inside region k, the earlier one where regions overlap, BACKGROUND elsewhere."""
    ids = np.full(next(iter(masks.values())).shape, BACKGROUND, np.uint8)
    for number in sorted(masks, reverse=True):
        ids[masks[number]] = number
    return ids


def masked(ids: Bytes) -> NDArray[np.bool_]:
    """Which pixels of a resized prompt-id map are masked."""
    return np.minimum(ids, BACKGROUND) != BACKGROUND
