"""The overlay: every region coloured and numbered where it is, every word of the caption legible."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.needs import GREEK_FONT
from PIL import Image, ImageFont

from gar_edge.runtime.errors import GarImageError
from gar_edge.runtime.regions import overlay
from gar_edge.runtime.regions.overlay import COLOURS, check_writable, draw_overlay

GREY = np.full((300, 700, 3), 128, np.uint8)


def square(left: int, upper: int, side: int = 100) -> np.ndarray:
    mask = np.zeros(GREY.shape[:2], bool)
    mask[upper : upper + side, left : left + side] = True
    return mask


def near(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(image.astype(int) - colour).max(axis=2) < 12


def test_regions_have_their_colour_at_their_edges_and_numbers_and_the_rest_is_as_it_was() -> None:
    regions = {0: square(50, 100), 3: square(400, 100)}
    found = np.array(draw_overlay(GREY, regions, None, "Two squares."))[:300]
    for number, mask in regions.items():
        rows, columns = np.nonzero(near(found, COLOURS[number]))
        where = np.zeros_like(mask)
        where[rows, columns] = True
        assert where[mask].sum() > 300  # the outline and the disc
        assert where[:, columns.min() : columns.max() + 1].any(axis=1).sum() > 95
    outside = ~(regions[0] | regions[3])
    far = outside.copy()
    for mask in regions.values():
        rows, columns = np.nonzero(mask)
        far[rows.min() - 8 : rows.max() + 9, columns.min() - 8 : columns.max() + 9] = False
    assert (found[far] == 128).all()


def test_a_small_picture_is_enlarged_so_that_text_has_room() -> None:
    small = np.full((30, 40, 3), 200, np.uint8)
    mask = np.zeros((30, 40), bool)
    mask[5:20, 5:20] = True
    drawn = draw_overlay(small, {0: mask}, None, "A square.")
    assert drawn.width == 640
    assert drawn.height > 480


def test_a_region_of_one_pixel_in_the_corner_is_still_numbered() -> None:
    mask = np.zeros(GREY.shape[:2], bool)
    mask[0, 0] = True
    found = np.array(draw_overlay(GREY, {1: mask}, None, "A pixel."))
    assert near(found[:60, :60], COLOURS[1]).sum() > 100


def test_long_words_and_long_texts_are_wrapped_whole() -> None:
    font = overlay._font("abc", 20)
    text = "Eine Donaudampfschifffahrtsgesellschaft, " * 8 + "x" * 300 + "\nsecond\n\nfourth"
    lines = overlay._lines(font, text, 400)
    assert all(font.face.getlength(line) <= 400 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert lines[-3:] == ["second", "", "fourth"]


def test_scripts_without_spaces_are_wrapped_between_characters() -> None:
    font = overlay._Face(ImageFont.load_default(20), frozenset())
    lines = overlay._lines(font, "最大的是第三个物体" * 10, 300)
    assert len(lines) > 1
    assert "".join(lines) == "最大的是第三个物体" * 10


def test_a_longer_caption_makes_a_higher_picture() -> None:
    regions = {0: square(50, 100)}
    short = draw_overlay(GREY, regions, None, "Yes.")
    long = draw_overlay(GREY, regions, "Is <Prompt0> a square?", "Yes, it is. " * 60)
    assert long.height > short.height + 100
    assert long.width == short.width


@pytest.mark.parametrize("text", ["größer, ça, señor", "Größe: Ελληνικά, Кириллица"])
def test_what_a_font_draws_is_drawn(text: str) -> None:
    if "Ε" in text:
        try:
            ImageFont.truetype("DejaVuSans.ttf", 16)
        except OSError:
            pytest.skip(GREEK_FONT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        font = overlay._font(text, 16)
    assert font.drawable(text) == text


def test_what_no_font_draws_is_written_as_its_code_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "FONTS", ())  # Pillow's own font is Latin
    with pytest.warns(UserWarning, match="no font here draws '大最'"):
        font = overlay._font("a最大", 16)
    assert font.drawable("a最大") == "a\\u6700\\u5927"


def test_an_empty_answer_is_said_to_be_none() -> None:
    with_answer = np.array(draw_overlay(GREY, {0: square(50, 100)}, None, ""))
    assert (with_answer[300:] < 100).any()  # ink


@pytest.mark.parametrize("name", ["answer.txt", "answer", "answer.mp4", "none/answer.png"])
def test_a_path_that_no_picture_can_be_written_to_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(GarImageError, match=name.rsplit("/", maxsplit=1)[-1]):
        check_writable(tmp_path / name)
    check_writable(tmp_path / "answer.png")
    check_writable(tmp_path / "answer.JPG")


def test_the_picture_is_what_pillow_saves(tmp_path: Path) -> None:
    drawn = draw_overlay(GREY, {0: square(50, 100)}, None, "A square.")
    drawn.save(tmp_path / "a.jpg")
    assert Image.open(tmp_path / "a.jpg").size == drawn.size
