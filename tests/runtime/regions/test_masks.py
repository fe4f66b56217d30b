"""Masks from files and arrays, fitted to a picture, and their boxes: values worked by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.spoilt import one_line
from PIL import Image

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.mask_images import load_mask
from gar_edge.runtime.images.shape import fit_mask, mask_box

pytestmark = pytest.mark.filterwarnings("error")  # whatever is handled is handled silently

RED = (255, 0, 0)


REGION = np.array([[False, True, False], [True, True, False]])


@pytest.mark.parametrize("high", [1, 255])
def test_a_grey_mask_marks_what_is_not_zero(tmp_path: Path, high: int) -> None:
    Image.fromarray(REGION.astype(np.uint8) * high).save(tmp_path / "m.png")
    found = load_mask(tmp_path / "m.png")
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, REGION)


def test_a_one_bit_mask_is_read(tmp_path: Path) -> None:
    Image.fromarray(REGION).save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png"), REGION)


def test_a_sixteen_bit_mask_marks_even_the_value_one(tmp_path: Path) -> None:
    Image.fromarray(REGION.astype(np.uint16)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png"), REGION)


def test_a_palette_mask_marks_by_colour_not_by_index(tmp_path: Path) -> None:
    picture = Image.fromarray(np.where(REGION, 0, 1).astype(np.uint8), "P")
    picture.putpalette([*RED, 0, 0, 0])  # index 1 is the black background
    picture.save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png"), REGION)


def test_a_palette_mask_with_transparency_is_read_silently(tmp_path: Path) -> None:
    picture = Image.fromarray(REGION.astype(np.uint8), "P")
    picture.putpalette([255, 255, 255, *RED])
    picture.save(tmp_path / "m.png", transparency=b"\x00\xff")  # white, but transparent: not marked
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png"), REGION)


@pytest.mark.parametrize("colour", [(1, 0, 0), (0, 0, 4), (0, 1, 0), RED])
def test_a_coloured_mask_marks_even_the_darkest_colour(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    Image.fromarray((REGION[..., None] * np.array(colour)).astype(np.uint8)).save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png"), REGION)


def test_transparent_pixels_of_a_mask_are_not_marked(tmp_path: Path) -> None:
    rgba = np.full((2, 3, 4), 255, np.uint8)  # white everywhere, as an eraser leaves it
    rgba[..., 3] = REGION * 255
    Image.fromarray(rgba).save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png"), REGION)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("opened", [False, True], ids=["path", "Pillow image"])
def test_a_jpeg_mask_is_read_at_half_with_a_warning_of_its_stray_pixels(
    tmp_path: Path, mode: str, opened: bool
) -> None:
    region = np.zeros((40, 40), bool)
    region[11:27, 13:30] = True
    Image.fromarray(region.astype(np.uint8) * 255).convert(mode).save(tmp_path / "m.jpg", quality=75)
    name = "mask" if opened else re.escape(str(tmp_path / "m.jpg"))
    with pytest.warns(UserWarning, match=rf"^{name}: JPEG's lossy compression .* save it as PNG$") as caught:
        found = load_mask(Image.open(tmp_path / "m.jpg") if opened else tmp_path / "m.jpg")
    assert len(caught) == 1
    np.testing.assert_array_equal(found, region)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
def test_a_mask_array_of_any_number_kind_is_taken(dtype: str) -> None:
    found = load_mask(REGION.astype(dtype))
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, REGION)


def test_a_fraction_in_a_mask_array_marks() -> None:
    assert load_mask(np.array([[0.0, 0.25]])).tolist() == [[False, True]]


@pytest.mark.parametrize("array", [[[0.0, 0.25, -3.1]], [[0.0, np.nan]], [[np.inf, 0.0]]])
def test_scores_and_logits_are_no_mask(array: list[list[float]]) -> None:
    with pytest.raises(GarMaskError, match="compare them with a threshold"):
        load_mask(np.array(array))


def test_a_mask_array_may_have_one_channel() -> None:
    np.testing.assert_array_equal(load_mask(REGION[..., None]), REGION)


@pytest.mark.parametrize("shape", [(2, 3, 3), (2,), (1, 2, 3, 1), (0, 3), (3, 0)])
def test_a_mask_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(GarMaskError) as error:
        load_mask(np.ones(shape))
    one_line(error, "[height, width]")


@pytest.mark.parametrize(
    "array", [np.array([["a"]]), np.array([[None]]), np.array([[1j]])], ids=["text", "object", "complex"]
)
def test_a_mask_array_that_holds_no_numbers_is_refused(array: np.ndarray) -> None:
    with pytest.raises(GarMaskError) as error:
        load_mask(array)
    one_line(error, "bool or numbers", str(array.dtype))


def test_an_exif_rotated_mask_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(REGION.astype(np.uint8) * 255).transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "m.png", exif=exif)
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png"), REGION)


def test_a_mask_of_the_pictures_size_is_kept() -> None:
    np.testing.assert_array_equal(fit_mask(REGION, 3, 2), REGION)


def test_two_by_two_becomes_four_by_four_by_nearest_neighbour() -> None:
    found = fit_mask(np.array([[True, False], [False, True]]), 4, 4)
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    np.testing.assert_array_equal(found, np.array(expected, bool))


def test_a_mask_is_stretched_to_another_aspect_ratio() -> None:
    # Three columns to six double, two rows to one keep the first.
    found = fit_mask(REGION, 6, 1)
    np.testing.assert_array_equal(found, np.array([[0, 0, 1, 1, 0, 0]], bool))


# Boxes: extreme pixels, inclusive, over the size


def test_the_box_of_one_pixel_has_no_extent() -> None:
    mask = np.zeros((4, 10), bool)
    mask[3, 7] = True
    assert mask_box(mask) == (0.7, 0.75, 0.7, 0.75)


def test_the_box_of_a_full_mask_ends_at_its_last_pixel() -> None:
    assert mask_box(np.ones((4, 10), bool)) == (0.0, 0.0, 0.9, 0.75)


def test_the_box_spans_separate_parts() -> None:
    mask = np.zeros((8, 8), bool)
    mask[1, 6] = mask[5, 2] = True
    assert mask_box(mask) == (0.25, 0.125, 0.75, 0.625)


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(GarMaskError) as error:
        mask_box(np.zeros((4, 4), bool))
    one_line(error, "empty", "non-zero")
