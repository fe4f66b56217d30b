"""Regions as COCO writes them: run lengths and polygons, worked by hand and against independent encoders."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.sample_files import COUNTS, REGION, TEXT, rle

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.regions.polygons import from_polygons
from gar_edge.runtime.regions.rle import decode_counts, decode_runs

# Run lengths


def test_runs_go_down_the_columns() -> None:
    np.testing.assert_array_equal(decode_runs(COUNTS, 5, 2), REGION)


def test_a_first_run_of_zero_begins_with_the_region() -> None:
    assert decode_runs([0, 1, 3], 2, 2).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", []),
        ("0", [0]),
        ("?", [15]),
        ("`0", [16]),  # 0b10000 would be read as negative: 16 | 32 = 48, then a group of zero
        ("T3", [100]),  # 0b11_00100: 4 | 32 = 36, then 3
        ("PPo0", [31 << 10]),  # 0, 0, 31 (with 32: "o"), 0
        (TEXT, COUNTS),
        ("1234", [1, 2, 3, 6]),  # from the fourth on, the difference: 4 + 2
    ],
)
def test_text_counts_worked_by_hand(text: str, counts: list[int]) -> None:
    assert decode_counts(text) == counts


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("compressed", [True, False], ids=["text", "list"])
def test_masks_come_back_from_an_independent_encoder(seed: int, compressed: bool) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(1, 40, 2))
    mask = np.kron(random.random((height, width)) < 0.4, np.ones((1 + seed * 6, 1 + seed))) > 0
    coded = rle(mask, compressed)["counts"]
    counts = decode_counts(coded) if compressed else coded
    np.testing.assert_array_equal(decode_runs(counts, mask.shape[1], mask.shape[0]), mask)


@pytest.mark.parametrize(
    ("text", "why"), [("12 3", "not COCO"), ("1é", "not COCO"), ("12P", "middle of a run"), ("o" * 40, "not COCO")]
)
def test_text_that_is_no_counts_is_refused(text: str, why: str) -> None:
    with pytest.raises(GarMaskError, match=why):
        decode_counts(text)


@pytest.mark.parametrize(
    ("counts", "size", "why"),
    [
        ([2, 3], (5, 2), "cover 5 pixels"),
        ([12, -2], (5, 2), "negative"),
        ([10**12], (10**6, 10**6), "is over"),
        ([], (1, 1), "cover 0 pixels"),
    ],
)
def test_runs_that_do_not_fill_the_size_are_refused(counts: list[int], size: tuple[int, int], why: str) -> None:
    with pytest.raises(GarMaskError, match=why):
        decode_runs(counts, *size)


# Polygons: COCO's rule; tests/runtime/regions/test_rasterisation.py holds them to pycocotools


def test_a_polygon_of_pixel_edges_takes_the_pixels_within() -> None:
    found = from_polygons([[1, 1, 4, 1, 4, 3, 1, 3]], 6, 4)  # from the edge of pixel 1 to that of 4
    assert np.argwhere(found).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]


def test_a_polygon_beyond_the_picture_is_cut() -> None:
    found = from_polygons([[-5, -5, 2, -5, 2, 50, -5, 50]], 4, 3)
    assert found.tolist() == [[True, True, False, False]] * 3


@pytest.mark.parametrize("seed", range(5))
def test_polygons_agree_with_scikit_images_point_test_but_for_the_edge(seed: int) -> None:
    from skimage.measure import grid_points_in_poly

    points = np.random.default_rng(seed).uniform(0, 40, (3, 2))
    inside = grid_points_in_poly((40, 40), points[:, ::-1] - 0.5)  # its pixels count from their centres, (y, x)
    found = from_polygons([points], 40, 40)
    near = [np.roll(inside, (down, across), (0, 1)) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    edge = np.any(near, axis=0) & ~np.all(near, axis=0)
    np.testing.assert_array_equal(found[~edge], inside[~edge])
