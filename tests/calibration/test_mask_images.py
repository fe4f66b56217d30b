"""Calibration samples from masks beside pictures, and folders that hold nothing of use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.sample_files import PROMPTS, check, paint, save_mask, square, write
from helpers.spoilt import one_line
from PIL import Image

from gar_edge.calibration import samples
from gar_edge.calibration.samples import folder
from gar_edge.runtime.errors import GarCalibrationError

# Mask images


@pytest.mark.parametrize(
    "names",
    [
        ["a_mask.png"],
        ["a.mask.png"],
        ["a_mask_0.png", "a_mask_1.png"],
        ["a_mask.PNG", "a_mask_2.png", "a_mask_10.png"],
        ["masks/a.png"],
        ["masks/a_0.png", "masks/a_1.png"],
    ],
)
@pytest.mark.parametrize("picture", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.JPG"])
def test_masks_beside_a_picture_are_found(tmp_path: Path, names: list[str], picture: str) -> None:
    paint(tmp_path / picture)
    masks = [square(10 * i, 4) for i in range(len(names))]
    for name, mask in zip(names, masks, strict=True):
        save_mask(tmp_path / name, mask)
    chosen = folder(tmp_path, None, PROMPTS)
    found = list(chosen)
    for sample in found:
        check(sample)
        assert sample.name == picture
    seen = {mask.tobytes() for sample in found for mask in sample.masks.values()}
    assert seen == {mask.tobytes() for mask in masks}
    assert chosen.skipped == []


def test_pictures_and_masks_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    paint(tmp_path / "images" / "a.jpg")
    save_mask(tmp_path / "masks" / "a.png", square(3, 3))
    (sample,) = folder(tmp_path, None, PROMPTS)
    assert sample.name == "a.jpg"


def test_a_stem_with_a_number_is_a_picture_of_its_own_first(tmp_path: Path) -> None:
    for name in ("a.jpg", "a_1.jpg"):
        paint(tmp_path / name)
    save_mask(tmp_path / "masks" / "a.png", square(3, 3))
    save_mask(tmp_path / "masks" / "a_1.png", square(9, 9))
    found = {sample.name: sample for sample in folder(tmp_path, None, PROMPTS)}
    np.testing.assert_array_equal(next(iter(found["a_1.jpg"].masks.values())), square(9, 9))
    assert len(found) == 2


def test_more_masks_than_prompts_are_asked_about_in_turn(tmp_path: Path) -> None:
    paint(tmp_path / "a.jpg")
    masks = [square(4 * i, 4, side=3) for i in range(9)]
    for index, mask in enumerate(masks):
        save_mask(tmp_path / f"a_mask_{index}.png", mask)
    found = list(folder(tmp_path, None, 2))
    for sample in found:
        check(sample, 2)
    assert sum(len(sample.masks) for sample in found) == 9


def test_unreadable_files_among_many_are_skipped_by_name(tmp_path: Path) -> None:
    for index in range(5):
        paint(tmp_path / f"{index}.jpg")
        save_mask(tmp_path / f"{index}_mask.png", square(3, 3))
    (tmp_path / "1.jpg").write_text("no picture")
    (tmp_path / "2_mask.png").write_text("no mask")
    save_mask(tmp_path / "3_mask.png", square(0, 0, side=0))
    (tmp_path / "4_mask.png").unlink()
    (tmp_path / "notes.txt").write_text("mine")
    chosen = folder(tmp_path, None, PROMPTS)
    assert [sample.name for sample in chosen] == ["0.jpg"]
    notes = dict(note.split(": ", 1) for note in chosen.skipped)
    assert notes["1.jpg"].startswith("not an image")
    assert notes["2.jpg"].startswith("2_mask.png: not an image")
    assert "marks no pixel" in notes["3.jpg"]
    assert "no region" in notes["4.jpg"]
    assert str(tmp_path) not in "".join(chosen.skipped)


def test_masks_of_another_shape_and_masks_without_a_ground_are_skipped_by_name(tmp_path: Path) -> None:
    for index in range(4):
        paint(tmp_path / f"{index}.jpg")
        save_mask(tmp_path / f"{index}_mask.png", square(3, 3))
    save_mask(tmp_path / "1_mask.png", square(3, 3, width=40, height=40))
    save_mask(tmp_path / "2_mask.png", ~square(3, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "3.jpg", exif=exif)
    chosen = folder(tmp_path, None, PROMPTS)
    assert [sample.name for sample in chosen] == ["0.jpg"]
    notes = dict(note.split(": ", 1) for note in chosen.skipped)
    assert "mask is 40x40, the picture 40x30, of another shape" in notes["1.jpg"]
    assert "97.0 % of the picture" in notes["2.jpg"]
    assert "by its EXIF, its stored size is 40x30" in notes["3.jpg"]


def test_what_is_skipped_is_made_up_for_from_the_rest(tmp_path: Path) -> None:
    for index in range(12):
        paint(tmp_path / f"{index}.jpg")
        save_mask(tmp_path / f"{index}_mask.png", square(3, 3))
    for index in range(6):
        (tmp_path / f"{index}.jpg").write_text("no picture")
    assert len(list(folder(tmp_path, 6, PROMPTS))) == 6
    assert len(list(folder(tmp_path, 8, PROMPTS))) == 6


def test_only_one_picture_is_loaded_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(4):
        paint(tmp_path / f"{index}.jpg")
        save_mask(tmp_path / f"{index}_mask.png", square(3, 3))
    loaded = []
    load = samples.Entry.image
    monkeypatch.setattr(samples.Entry, "image", lambda entry: loaded.append(entry.name) or load(entry))
    samples_of_it = iter(folder(tmp_path, None, PROMPTS))
    assert loaded == []
    next(samples_of_it)
    assert loaded == ["0.jpg"]


# Folders that hold nothing of use


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(GarCalibrationError) as error:
        folder(tmp_path / "none", None, PROMPTS)
    one_line(error, str(tmp_path / "none"), "no such folder")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    paint(tmp_path / "a.png")
    with pytest.raises(GarCalibrationError) as error:
        folder(tmp_path / "a.png", None, PROMPTS)
    one_line(error, "a.png", "not a folder")


def test_an_empty_folder_holds_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(GarCalibrationError) as error:
        folder(tmp_path, None, PROMPTS)
    one_line(error, str(tmp_path), "holds no pictures", "NAME_mask.png", "regions.json")


@pytest.mark.parametrize(
    ("count", "held"), [(1, "holds 1 picture but no masks"), (12, "holds 12 pictures but no masks")]
)
def test_pictures_without_masks_are_counted(tmp_path: Path, count: int, held: str) -> None:
    for index in range(count):
        paint(tmp_path / f"{index}.png")
    with pytest.raises(GarCalibrationError) as error:
        folder(tmp_path, None, PROMPTS)
    one_line(error, held, "put NAME_mask.png beside each, or a regions.json or COCO annotations")


def test_a_json_file_of_another_kind_is_named_where_nothing_else_is(tmp_path: Path) -> None:
    paint(tmp_path / "a.png")
    write(tmp_path / "labels.json", {"shapes": []})
    with pytest.raises(GarCalibrationError) as error:
        folder(tmp_path, None, PROMPTS)
    one_line(error, "labels.json", "neither regions.json nor COCO", "no masks")
