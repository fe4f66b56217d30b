"""Which grid of tiles a picture is cut into: the released processor's rule."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gar_edge.runtime.errors import GarPromptError

Grid = tuple[int, int]  # columns, rows


def choose_grid(width: int, height: int, tile: int, max_tiles: int) -> Grid:
    """(columns, rows) of tiles for a picture of width x height pixels, at most `max_tiles` in all.

    Rule: the image processor of Perception LM. Among the canvases that hold the picture unshrunk, the one in which
    its aspect-preserving fit has the largest shorter edge (the later candidate on a tie); otherwise the closest
    aspect ratio, with as many tiles as it allows.
    """
    if max_tiles < 1:
        raise GarPromptError(f"max_tiles must be at least 1, not {max_tiles}")
    if max_tiles == 1:
        return 1, 1
    by_ratio = _grids_by_ratio(max_tiles)
    return _roomy_grid(width, height, tile, by_ratio) or _closest_grid(width / height, by_ratio)


def _grids_by_ratio(max_tiles: int) -> dict[float, list[Grid]]:
    """Every grid of at most max_tiles, grouped by columns/rows in the order in which each ratio first appears."""
    grids: dict[float, list[Grid]] = {}
    for count in range(max_tiles, 0, -1):
        for columns in range(1, count + 1):
            if count % columns == 0:
                rows = count // columns
                grids.setdefault(columns / rows, []).append((columns, rows))
    return grids


def _roomy_grid(width: int, height: int, tile: int, by_ratio: Mapping[float, list[Grid]]) -> Grid | None:
    ratio = width / height
    shorter_edge = 0 if ratio < 1 else 1
    best: Grid | None = None
    best_edge = 0.0
    for columns, rows in (grid for grids in by_ratio.values() for grid in grids):
        if columns * tile < width or rows * tile < height:
            continue
        edge = _fit(width, height, columns * tile, rows * tile)[shorter_edge]
        if best is None or edge >= best_edge:
            best, best_edge = (columns, rows), edge
    return best


def _fit(width: int, height: int, canvas_width: int, canvas_height: int) -> tuple[float, float]:
    """Size of the picture scaled into the canvas; rounding follows the released code, for its ties matter."""
    ratio = width / height
    factor = min(canvas_width / width, canvas_height / height)
    if ratio > 1:
        fitted = factor * width
        return fitted, math.floor(fitted / ratio)
    fitted = factor * height
    return math.floor(fitted * ratio), fitted


def _closest_grid(ratio: float, by_ratio: Mapping[float, list[Grid]]) -> Grid:
    if ratio >= 1:
        nearest = min((r for r in by_ratio if r <= ratio), key=lambda r: abs(r - ratio))
        return max(by_ratio[nearest], key=lambda grid: grid[0])
    nearest = min((r for r in by_ratio if r > ratio), key=lambda r: abs(1 / r - 1 / ratio))
    return max(by_ratio[nearest], key=lambda grid: grid[1])
