"""Calibration samples from regions.json: read in its order, and bad entries and files named in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.sample_files import PROMPTS, REGION, TEXT, check, paint, rle, same, square, write
from helpers.spoilt import one_line
from PIL import Image

from gar_edge.calibration.samples import folder
from gar_edge.runtime.errors import GarCalibrationError, GarExportError


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Three pictures: a question about two regions, a region to describe, three without a question."""
    for index in range(3):
        paint(tmp_path / "images" / f"{index}.jpg")
    masks = [square(2, 3), square(12, 5), square(22, 9)]
    write(
        tmp_path / "regions.json",
        [
            {
                "image": "images/0.jpg",
                "mask_rles": [rle(masks[0]), rle(masks[1], compressed=False)],
                "question": "Is <Prompt1> on <Prompt0>?",
                "answer": "No.",
            },
            {"image": "images/1.jpg", "mask_rles": [rle(masks[2])]},
            {"image": "images/2.jpg", "mask_rles": [rle(mask) for mask in masks], "question": None},
        ],
    )
    return tmp_path


def test_regions_json_is_read_in_its_order(listed: Path) -> None:
    chosen = folder(listed, None, PROMPTS)
    first, second, third = chosen
    for sample in (first, second, third):
        check(sample)
    assert (first.name, first.question) == ("images/0.jpg", "Is <Prompt1> on <Prompt0>?")
    np.testing.assert_array_equal(first.masks[0], square(2, 3))
    np.testing.assert_array_equal(first.masks[1], square(12, 5))
    np.testing.assert_array_equal(next(iter(second.masks.values())), square(22, 9))
    assert len(third.masks) == 3
    assert not chosen.builtin
    assert chosen.skipped == []
    assert "regions.json" in chosen.description
    assert same(chosen, chosen)


def test_masks_of_another_size_are_fitted(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", width=10, height=4)
    write(tmp_path / "regions.json", [{"image": "a.png", "mask_rles": [{"size": [2, 5], "counts": TEXT}]}])
    (sample,) = folder(tmp_path, None, PROMPTS)
    np.testing.assert_array_equal(next(iter(sample.masks.values())), REGION.repeat(2, 0).repeat(2, 1))


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    write(tmp_path / "regions.json", [{"image": "a.jpg", "mask_rles": [rle(square(2, 3, width=30, height=40))]}])
    (sample,) = folder(tmp_path, None, PROMPTS)
    assert sample.image.shape == (40, 30, 3)


def test_four_and_five_regions_without_a_question_get_one(tmp_path: Path) -> None:
    paint(tmp_path / "a.png")
    masks = [rle(square(7 * i, 3)) for i in range(5)]
    write(tmp_path / "regions.json", [{"image": "a.png", "mask_rles": masks[:n]} for n in (4, 5)])
    for sample, count in zip(folder(tmp_path, None, PROMPTS), (4, 5), strict=True):
        check(sample)
        assert len(sample.masks) == count


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"mask_rles": [rle(square(2, i)) for i in range(6)]}, "6 regions, the model takes at most 5"),
        ({"question": "What is <Prompt3>?"}, "names <Prompt3>, which has no mask"),
        ({"question": "What is this?"}, "does not name <Prompt0>"),
        ({"mask_rles": []}, "no region"),
        ({"mask_rles": [{"size": [30, 40], "counts": "12"}]}, "cover 3 pixels"),
        ({"mask_rles": [{"size": [30, 40], "counts": "é"}]}, "not COCO run lengths"),
        ({"mask_rles": [{"size": [30, 40], "counts": [1200]}]}, "marks no pixel"),
        ({"mask_rles": [{"size": [10**6, 10**6], "counts": [10**12]}]}, "pixels"),
        ({"image": "../a.png"}, "outside the folder"),
        ({"image": "/etc/a.png"}, "outside the folder"),
        ({"image": "none.png"}, "no such image file"),
        ({"image": "x" * 5000}, "no such image file"),
        ({"image": "a\0b"}, "no such image file"),
        ({"image": "broken.jpg"}, "not an image"),
    ],
)
def test_an_entry_that_cannot_be_used_is_skipped_by_name(tmp_path: Path, entry: dict[str, Any], why: str) -> None:
    inside = tmp_path / "set"
    paint(inside / "a.png")
    paint(tmp_path / "a.png")
    (inside / "broken.jpg").write_text("no picture")
    good = {"image": "a.png", "mask_rles": [rle(square(2, 3))]}
    write(inside / "regions.json", [good | entry, good])
    chosen = folder(inside, None, PROMPTS)
    (sample,) = chosen
    check(sample)
    (note,) = chosen.skipped
    assert note.startswith(f"{(good | entry)['image']}: ")
    assert why in note
    assert str(inside) not in note


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ("[{", ("not JSON",)),
        ("\xff\xfe", ("regions.json",)),
        ("[" * 100_000, ("not JSON",)),
        ({}, ("the file", "a list")),
        ([7], ("[0]", "an object")),
        ([{"mask_rles": []}], ("[0].image", "missing", "a text")),
        ([{"image": 3}], ("[0].image", "is 3")),
        ([{"image": " "}], ("[0].image",)),
        ([{"image": "a.png"}], ("[0].mask_rles", "missing")),
        ([{"image": "a.png", "mask_rles": ["x"]}], ("[0].mask_rles[0]", "an object")),
        ([{"image": "a.png", "mask_rles": [{"size": [2, 5]}]}], ("[0].mask_rles[0].counts", "missing")),
        ([{"image": "a.png", "mask_rles": [{"counts": TEXT}]}], ("[0].mask_rles[0].size", "missing")),
        ([{"image": "a.png", "mask_rles": [{"counts": TEXT, "size": [2]}]}], ("size", "[height, width]")),
        ([{"image": "a.png", "mask_rles": [{"counts": TEXT, "size": [2, 0]}]}], ("size[1]", "from 1 on")),
        ([{"image": "a.png", "mask_rles": [{"counts": [1, 2.5], "size": [2, 5]}]}], ("counts[1]", "2.5")),
        ([{"image": "a.png", "mask_rles": [{"counts": [True], "size": [2, 5]}]}], ("counts[0]", "true")),
        ([{"image": "a.png", "mask_rles": [], "question": 5}], ("[0].question", "a text")),
        ([], ("no regions",)),
    ],
)
def test_a_wrong_regions_json_names_file_and_field(tmp_path: Path, data: Any, parts: tuple[str, ...]) -> None:
    write(tmp_path / "regions.json", data)
    with pytest.raises(GarCalibrationError) as error:
        folder(tmp_path, None, PROMPTS)
    one_line(error, "regions.json", *parts)


def test_nothing_left_names_the_first_reasons(tmp_path: Path) -> None:
    entries = [{"image": f"{i}.png", "mask_rles": [rle(square(2, 3))]} for i in range(5)]
    write(tmp_path / "regions.json", entries)
    chosen = folder(tmp_path, 2, PROMPTS)
    with pytest.raises(GarCalibrationError) as error:
        list(chosen)
    one_line(error, str(tmp_path), ".png: no such image file; ", "…")
    assert isinstance(error.value, GarExportError)
    assert len(chosen.skipped) == 5
