"""Regions as people give them: masks worked by hand, cuts of drawn pictures, bad input in one line."""

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.refusals import refused
from PIL import Image

from gar_edge.runtime import Gar, Options
from gar_edge.runtime.regions import (
    Box,
    Points,
    Polygons,
    Runs,
    Scribble,
    box_mask,
    find_mask,
    from_labels,
    from_polygons,
    from_rle,
    grabcut,
)
from gar_edge.runtime.regions.coordinates import fractions_meant

WIDTH, HEIGHT = 130, 90
DISC = np.hypot(*np.mgrid[-40:50, -45:85]) <= 18  # [90,130], centre (45, 40): columns 27 to 63, rows 22 to 58
AROUND = Box(25, 20, 66, 61)


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.fixture(scope="module")
def discs() -> np.ndarray:
    """A red disc and, far to the right, a smaller one of the same colour, on noisy grey."""
    random = np.random.default_rng(5)
    image = np.full((HEIGHT, WIDTH, 3), 120.0)
    image[DISC] = (200, 40, 40)
    image[np.hypot(*np.mgrid[-45:45, -110:20]) <= 10] = (200, 40, 40)
    return np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


# Run lengths

SQUARE = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 0, 1]], bool)  # down the columns: 00 | 11 1|0 00 0|1


@pytest.mark.parametrize("counts", [[2, 3, 4, 1], "234N", b"234N"])
def test_run_lengths_go_down_the_columns(counts: Any) -> None:
    np.testing.assert_array_equal(from_rle({"size": [2, 5], "counts": counts}), SQUARE)


@pytest.mark.parametrize(
    ("rle", "parts"),
    [
        ({"size": [10**6, 10**6], "counts": [10**12]}, ("1000000x1000000", "over")),
        ({"size": [2**40, 2**40], "counts": "0"}, ("over",)),
        ({"size": [2, 5], "counts": [2, 3]}, ("cover 5 pixels",)),
        ({"size": [2, 5], "counts": [2, -3, 11]}, ("negative",)),
        ({"size": [2, 5], "counts": "oooooooo1"}, ("not COCO run lengths",)),
        ({"size": [2, 5], "counts": "~"}, ("not COCO run lengths",)),
        ({"size": [2, 5], "counts": b"\xff"}, ("not COCO run lengths",)),
        ({"size": [2, 5], "counts": "o"}, ("middle of a run",)),
        ({"size": [2], "counts": "1"}, ("size", "height, width")),
        ({"size": [0, 5], "counts": "1"}, (r"size\[0\]", "from 1 on")),
        ({"size": [2, 5], "counts": [2, 2.5]}, (r"counts\[1\]", "whole number")),
        ({"size": [2, 5]}, ("counts", "missing")),
    ],
)
def test_run_lengths_that_are_none_or_hostile_are_refused(rle: dict[str, Any], parts: tuple[str, ...]) -> None:
    with refused(*parts):
        from_rle(rle)


def test_a_polygon_of_pixel_edges_fills_its_pixels() -> None:
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(from_polygons([[2, 1, 5, 1, 5, 3, 2, 3]], 6, 4), expected)


@pytest.mark.parametrize(
    "outline", [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], [0, 0, 1e9, 0, 1, 1], [0, 0, float("nan"), 0, 1, 1]]
)
def test_polygons_that_are_none_are_refused(outline: list[float]) -> None:
    with refused("polygon"):
        from_polygons([outline], 6, 4)


def test_a_hostile_polygon_size_is_refused_before_anything_is_allocated() -> None:
    with refused("over"):
        Polygons([[0, 0, 1, 0, 1, 1]], (10**9, 10**9)).draw(6, 4)


# Label images

LABELS = np.array([[0, 3, 3], [7, 0, 3]])


def test_every_label_is_a_region(tmp_path: Path) -> None:
    palette = Image.fromarray(LABELS.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0] * 8)  # all black: the index counts, not the colour
    palette.save(tmp_path / "palette.png")
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "deep.png")
    for labels in (LABELS, tmp_path / "palette.png", tmp_path / "deep.png"):
        found = from_labels(labels)
        assert list(found) == [3, 7]
        np.testing.assert_array_equal(found[3], LABELS == 3)
        np.testing.assert_array_equal(found[7], LABELS == 7)


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (np.zeros((2, 2), int), "all pixels are 0"),
        (np.arange(4000).reshape(40, 100), "photograph"),
        (np.zeros((2, 2)), "whole numbers"),
        (np.zeros((2, 2, 3), int), "whole numbers"),
        (Image.new("RGB", (2, 2)), "all pixels are 0"),
        (Image.new("F", (2, 2)), "floating-point"),
    ],
)
def test_what_numbers_nothing_is_no_label_image(labels: Any, part: str) -> None:
    with refused(part):
        from_labels(labels)


# Boxes


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        (Box(2, 1, 5, 3), (1, 3), (2, 5)),
        (Box(0, 0, WIDTH, HEIGHT), (0, HEIGHT), (0, WIDTH)),
        (Box(0.5, 0.5, 1.0, 1.0, fractions=True), (45, 90), (65, 130)),
        (Box(1.6, 1.4, 3.4, 3.6), (1, 4), (2, 3)),  # centres 2.5 | 1.5, 2.5, 3.5
        (Box(7.6, 7.6, 7.9, 7.9), (7, 8), (7, 8)),  # holds no centre: the pixel it lies in
    ],
)
def test_a_box_holds_the_pixels_whose_centres_it_holds(
    box: Box, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[slice(*rows), slice(*columns)] = True
    np.testing.assert_array_equal(box_mask(np.zeros((HEIGHT, WIDTH, 3), np.uint8), box), expected)


@pytest.mark.parametrize(
    "corners", [(5, 1, 2, 3), (2, 3, 5, 3), (2, 1, 2, 3), (0, 0, float("nan"), 1), (0, 0, float("inf"), 1)]
)
def test_a_box_without_extent_is_refused_at_once(corners: tuple[float, ...]) -> None:
    with refused("box"):
        Box(*corners)


@pytest.mark.parametrize(
    "box", [Box(130, 0, 140, 10), Box(-9, 0, 0, 10), Box(0, 90, 9, 99), Box(1.0, 0.0, 1.5, 1.0, fractions=True)]
)
def test_a_box_outside_the_picture_is_refused(discs: np.ndarray, box: Box) -> None:
    with refused("region: box", "outside the picture, which is 130x90"):
        find_mask(box, discs)


def test_what_reaches_beyond_the_picture_is_cut_off_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"box 120,-5,150,5 reaches beyond the picture"):
        assert Box(120, -5, 150, 5).bounds(WIDTH, HEIGHT) == (120, 0, 130, 5)


@pytest.mark.parametrize(
    ("numbers", "meant"),
    [
        ((0.1, 0.2, 0.5, 0.5), True),
        ((0, 0, 0.5, 1), True),
        ((0.0, 0, 1, 1), True),
        ((0, 0, 1, 1), False),  # the first pixel
        ((0.5, 0.5, 20, 20), False),
        ((10.5, 3.0), False),
        ((-0.1, 0.5), False),
    ],
)
def test_fractions_lie_within_0_and_1_and_have_a_decimal_point(numbers: tuple[float, ...], meant: bool) -> None:
    assert fractions_meant(numbers) is meant


# Cuts


def test_grabcut_finds_what_a_box_holds(discs: np.ndarray) -> None:
    found = grabcut(discs, AROUND)
    assert found.shape == (HEIGHT, WIDTH)
    assert found.dtype == np.bool_
    assert iou(found, DISC) > 0.95


def test_the_same_box_makes_the_same_mask(discs: np.ndarray) -> None:
    cv2.setRNGSeed(1)
    first = grabcut(discs, AROUND)
    cv2.setRNGSeed(2)
    np.testing.assert_array_equal(grabcut(discs, AROUND), first)


@pytest.mark.parametrize("cue", [AROUND, Points([(45, 40)])])
def test_a_picture_that_may_not_be_written_to_is_cut(discs: np.ndarray, cue: Any) -> None:
    fixed = discs[:, ::-1].copy()[:, ::-1]
    fixed.flags.writeable = False
    np.testing.assert_array_equal(grabcut(fixed, cue), grabcut(discs, cue))


def test_fractions_and_pixels_mean_the_same_box(discs: np.ndarray) -> None:
    fractions = Box(25 / 130, 20 / 90, 66 / 130, 61 / 90, fractions=True)
    np.testing.assert_array_equal(grabcut(discs, fractions), grabcut(discs, AROUND))


def test_a_large_picture_is_cut_at_a_smaller_size(discs: np.ndarray) -> None:
    large = discs.repeat(20, axis=0).repeat(20, axis=1)  # 2600x1800
    found = grabcut(large, Box(500, 400, 1320, 1220))
    assert iou(found, DISC.repeat(20, axis=0).repeat(20, axis=1)) > 0.95


@pytest.mark.parametrize("box", [Box(0, 0, 130, 90), Box(3, 3, 5, 4), Box(60, 65, 90, 85)])
def test_where_nothing_stands_out_the_box_is_the_mask(box: Box) -> None:
    flat = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    with warnings.catch_warnings(record=True):
        found = grabcut(flat, box)
    np.testing.assert_array_equal(found, box_mask(flat, box))


def test_a_point_means_the_thing_it_lies_on_and_none_like_it(discs: np.ndarray) -> None:
    assert iou(grabcut(discs, Points([(45, 40)])), DISC) > 0.95


def test_a_point_outside_takes_away(discs: np.ndarray) -> None:
    image = discs.copy()
    image[38:43, 60:105] = (200, 40, 40)  # a bridge between the two discs
    both = grabcut(image, Points([(45, 40)]))
    one = grabcut(image, Points([(45, 40)], [(110, 45), (90, 40)], box=Box(20, 15, 110, 65)))
    assert both[45, 112]
    assert not one[45, 112]
    assert one[40, 45]


def test_points_may_be_fractions_up_to_the_edge(discs: np.ndarray) -> None:
    marks = Points([(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)], fractions=True).marks(WIDTH, HEIGHT)
    assert marks.inside.tolist() == [[0, 0], [129, 89], [65, 45]]


@pytest.mark.parametrize("point", [(-1, 5), (130, 5), (5, 90), (5, -0.5)])
def test_a_point_outside_the_picture_is_refused(discs: np.ndarray, point: tuple[float, float]) -> None:
    for points in (Points([point]), Points([(45, 40)], [point])):
        with refused("point", "outside the picture, which is 130x90"):
            find_mask(points, discs)


def test_points_that_mean_nothing_are_refused(discs: np.ndarray) -> None:
    with refused("no point lies inside"):
        Points([], [(3, 3)])
    with refused("point 1.5,0", "fractions"):
        Points([(1.5, 0)], fractions=True)
    with refused("a point of 3 numbers"):
        Points([(1, 2, 3)])  # type: ignore[list-item]
    with refused("point 99,80 lies outside the region's box"):
        find_mask(Points([(99, 80)], box=AROUND), discs)


def test_a_scribble_marks_inside_and_in_red_outside(discs: np.ndarray, tmp_path: Path) -> None:
    strokes = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    strokes[38:42, 35:55] = (0, 255, 0, 255)
    strokes[5:8, 10:120] = (255, 30, 20, 255)
    strokes[45:48, 108:112] = (255, 0, 0, 255)
    Image.fromarray(strokes).save(tmp_path / "strokes.png")
    for image in (strokes, tmp_path / "strokes.png"):
        assert iou(grabcut(discs, Scribble(image)), DISC) > 0.95
    only_red = strokes.copy()
    only_red[38:42] = 0
    with refused("no stroke marks the region"):
        grabcut(discs, Scribble(only_red))


def test_a_scribble_that_is_no_image_is_named(discs: np.ndarray, tmp_path: Path) -> None:
    with refused("none.png", "no such scribble file"):
        find_mask(Scribble(tmp_path / "none.png"), discs)


# In a scene


def test_a_scene_takes_cues_where_masks_go(tiny_bundle: Path, discs: np.ndarray) -> None:
    scene, options = Gar.load(tiny_bundle).open(discs), Options(max_new_tokens=6)
    cut = scene.describe(AROUND, options=options)
    assert cut.tokens == scene.describe(grabcut(discs, AROUND), options=options).tokens
    runs = Runs(WIDTH, HEIGHT, [0, WIDTH * HEIGHT])
    question = "Is <Prompt0> on <Prompt2>?"
    answer = scene.ask(question, {0: Points([(45, 40)]), 2: runs}, options=options)
    assert (
        answer.tokens
        == scene.ask(question, {0: grabcut(discs, Points([(45, 40)])), 2: np.ones_like(DISC)}, options=options).tokens
    )


def test_a_scene_names_the_region_that_is_wrong(tiny_bundle: Path, discs: np.ndarray) -> None:
    scene = Gar.load(tiny_bundle).open(discs)
    with refused("^region 2: box 200,0,210,9 lies outside"):
        scene.ask("<Prompt2>", {2: Box(200, 0, 210, 9)})
