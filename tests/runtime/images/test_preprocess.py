"""Resize against torch's antialiased bicubic, tiling against hand-worked cases, masks through the bicubic path."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gar_edge.runtime import GarPromptError
from gar_edge.runtime.bundle.manifest import Preprocess
from gar_edge.runtime.images.preprocess import cut_mask, cut_tiles
from gar_edge.runtime.images.resize import blocks, resize, resize_part
from gar_edge.runtime.images.tiling import choose_grid

SPEC = Preprocess(8, 4, 1 / 255, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((90, 700), (448, 448)),
        ((640, 427), (896, 448)),
        ((2000, 1333), (448, 448)),
        ((3, 5), (224, 112)),
        ((1, 1), (9, 4)),
        ((300, 301), (300, 448)),
        ((448, 448), (448, 448)),
    ],
)
def test_resize_is_torchs_antialiased_bicubic(source: tuple[int, int], target: tuple[int, int]) -> None:
    image = np.random.default_rng(5).integers(0, 256, (source[1], source[0], 3), np.uint8)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = F.interpolate(x, (target[1], target[0]), mode="bicubic", antialias=True)[0].round().clamp(0, 255)
    found = resize(image, *target).astype(int)
    difference = np.abs(found - expected.permute(1, 2, 0).numpy().astype(int))
    assert difference.max() <= 1  # a sum that ends at .5 may round either way
    assert (difference == 0).mean() >= 0.9999


@pytest.mark.parametrize("source", [(7, 5), (61, 300), (448, 448), (1333, 700)])
@pytest.mark.parametrize("grid", [(1, 1), (3, 2)])
def test_every_tile_is_cut_out_of_the_resized_whole(source: tuple[int, int], grid: tuple[int, int]) -> None:
    random, side = np.random.default_rng(7), 56
    image = random.integers(0, 256, (source[1], source[0], 3), np.uint8)
    columns, rows = grid
    whole = resize(image, columns * side, rows * side)
    for column in range(columns):
        for row in range(rows):
            across = blocks(source[0], columns * side, column * side, (column + 1) * side)
            down = blocks(source[1], rows * side, row * side, (row + 1) * side)
            expected = whole[row * side : (row + 1) * side, column * side : (column + 1) * side]
            assert (resize_part(image, across, down).transpose(1, 2, 0) == expected).all()
            assert (resize_part(image, across[1:2], down[2:]).transpose(1, 2, 0) == expected[32:, 16:32]).all()


def test_resize_keeps_a_grey_image_grey() -> None:
    assert (resize(np.full((13, 7), 77, np.uint8), 31, 5) == 77).all()


@pytest.mark.parametrize(
    ("size", "tile", "most", "grid"),
    [
        ((560, 373), 448, 4, (2, 2)),  # released code's own choice
        ((180, 520), 448, 2, (1, 2)),  # released code's own choice
        ((200, 150), 448, 4, (2, 2)),  # small images are enlarged
        ((100, 100), 448, 16, (4, 4)),
        ((100, 100), 448, 1, (1, 1)),
        ((896, 448), 448, 2, (2, 1)),
        ((10000, 100), 448, 6, (6, 1)),  # no canvas holds it: the widest ratio not above its own
        ((100, 10000), 448, 6, (1, 6)),
        ((4000, 3000), 448, 16, (4, 3)),
    ],
)
def test_grid(size: tuple[int, int], tile: int, most: int, grid: tuple[int, int]) -> None:
    assert choose_grid(*size, tile, most) == grid


def test_grid_never_exceeds_the_limit() -> None:
    random = np.random.default_rng(6)
    for _ in range(300):
        width, height, most = (int(x) for x in random.integers(1, [3000, 3000, 20]))
        columns, rows = choose_grid(width, height, 224, most)
        assert 1 <= columns * rows <= most


def test_no_tiles_is_refused() -> None:
    with pytest.raises(GarPromptError, match="at least 1"):
        choose_grid(10, 10, 448, 0)


def test_tiles_are_row_major_after_the_thumbnail() -> None:
    # 16x16, four flat quadrants: each tile lies inside one of them, so its middle keeps the quadrant's value.
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8, 8:], image[8:, :8], image[8:, 8:] = 50, 100, 200
    tiles = cut_tiles(image, SPEC)
    assert (tiles.grid, tiles.pixels.shape) == ((2, 2), (5, 3, 8, 8))
    assert tiles.pixels[1:, 0, 4, 4].tolist() == [0, 50, 100, 200]
    assert tiles.pixels[0, 0, [1, 1, 6, 6], [1, 6, 1, 6]].tolist() == [0, 50, 100, 200]


def test_mask_of_everything_and_of_nothing_known() -> None:
    full = np.ones((16, 16), bool)
    assert cut_mask({0: full}, (2, 2), SPEC, 5).all()
    half = full.copy()
    half[:, 8:] = False
    tiles = cut_mask({2: half}, (2, 2), SPEC, 5)
    assert tiles[[1, 3], :, :6].all()  # the left tiles, away from the edge
    assert not tiles[[2, 4], :, 2:].any()  # the right ones


def test_where_regions_overlap_the_earlier_wins() -> None:
    # Region 4 alone leaves single rounding errors at its edge that region 0 does not: painted 4 or 0 differ there.
    full = np.ones((9, 9), bool)
    edge = np.zeros((9, 9), bool)
    edge[:, :4] = True
    grid = (2, 2)
    first = cut_mask({0: edge, 4: edge}, grid, SPEC, 5)
    assert (first == cut_mask({0: edge}, grid, SPEC, 5)).all()
    assert (cut_mask({4: edge}, grid, SPEC, 5) != first).any()
    assert cut_mask({0: edge, 1: full}, grid, SPEC, 5).all()


@pytest.mark.parametrize("source", [(5, 3), (64, 200), (640, 480)])
@pytest.mark.parametrize("grid", [(1, 1), (2, 1), (3, 4)])
@pytest.mark.parametrize("density", [0.02, 0.5, 1])
def test_a_mask_is_cut_as_its_whole_canvas_would_be(
    source: tuple[int, int], grid: tuple[int, int], density: float
) -> None:
    """Regions of every size and place, none included; the whole map is resized and cut by hand."""
    random, no_region, side = np.random.default_rng(8), 5, 112
    spec = Preprocess(side, 16, 1 / 255, (0.5,) * 3, (0.5,) * 3)
    width, height = source
    for _ in range(6):
        masks = {}
        for number in random.permutation(no_region)[:2].tolist():
            (left, right), (top, bottom) = (np.sort(random.integers(0, size + 1, 2)) for size in source)
            masks[number] = np.zeros((height, width), bool)
            masks[number][top:bottom, left:right] = random.random((bottom - top, right - left)) < density
        painted = np.full((height, width), no_region, np.uint8)
        for number, mask in masks.items():
            painted[mask & (painted == no_region)] = number
        canvas = resize(painted, grid[0] * side, grid[1] * side) < no_region
        cut = canvas.reshape(grid[1], side, grid[0], side).transpose(0, 2, 1, 3).reshape(-1, side, side)
        expected = np.concatenate([resize(painted, side, side)[None] < no_region, cut])
        np.testing.assert_array_equal(cut_mask(masks, grid, spec, no_region), expected)
