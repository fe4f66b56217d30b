"""Data sets as the tools lay them out: annotations in one folder, pictures in another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.sample_files import PROMPTS, paint, rle, save_mask, square, write

from gar_edge.calibration.samples import folder
from gar_edge.runtime.errors import GarCalibrationError


def coco(name: str = "a.jpg", left: int = 2, **image: Any) -> dict[str, Any]:
    entry = {"id": 1, "file_name": name, "width": 40, "height": 30} | image
    return {
        "images": [{key: value for key, value in entry.items() if value is not None}],
        "annotations": [{"image_id": 1, "segmentation": rle(square(left, 3))}],
    }


def put(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, data)


def left_edges(given: Path) -> list[int]:
    """Where the regions begin: tells one set from another."""
    found = folder(given, None, PROMPTS)
    edges = [int(np.flatnonzero(mask.any(axis=0))[0]) for sample in found for mask in sample.masks.values()]
    assert found.skipped == []
    return edges


@pytest.mark.parametrize("pictures", ["val2017", "images/val2017", "images", "", "annotations", "JPEGImages"])
@pytest.mark.parametrize("given", ["", "annotations", "annotations/instances_val2017.json"])
def test_coco(tmp_path: Path, pictures: str, given: str) -> None:
    put(tmp_path / "annotations/instances_val2017.json", coco())
    paint(tmp_path / pictures / "a.jpg")
    assert left_edges(tmp_path / given) == [2]


@pytest.mark.parametrize("given", ["", "annotations"])
@pytest.mark.parametrize("pictures", ["images/default", "images"])
def test_cvat(tmp_path: Path, given: str, pictures: str) -> None:
    put(tmp_path / "annotations/instances_default.json", coco("shelf/a.jpg"))
    paint(tmp_path / pictures / "shelf" / "a.jpg")
    assert left_edges(tmp_path / given) == [2]


def test_roboflow_and_fiftyone(tmp_path: Path) -> None:
    put(tmp_path / "robo/train/_annotations.coco.json", coco())
    paint(tmp_path / "robo/train/a.jpg")
    assert left_edges(tmp_path / "robo") == left_edges(tmp_path / "robo/train") == [2]
    put(tmp_path / "fifty/labels.json", coco())
    paint(tmp_path / "fifty/data/a.jpg")
    assert left_edges(tmp_path / "fifty") == [2]


def test_of_several_roboflow_splits_one_must_be_named(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        put(tmp_path / split / "_annotations.coco.json", coco())
    with pytest.raises(GarCalibrationError, match=r"2 COCO files \(train/_annotations.*name one"):
        folder(tmp_path, None, PROMPTS)


def test_captions_and_keypoints_beside_the_instances(tmp_path: Path) -> None:
    put(tmp_path / "annotations/instances_val2017.json", coco())
    put(tmp_path / "annotations/person_keypoints_val2017.json", coco(left=20))
    captions = {"images": [], "annotations": [{"image_id": 1, "id": 1, "caption": "A cup."}]}
    put(tmp_path / "annotations/captions_val2017.json", captions)
    paint(tmp_path / "val2017/a.jpg")
    assert left_edges(tmp_path) == [2]
    (tmp_path / "annotations/instances_val2017.json").unlink()
    assert left_edges(tmp_path) == [20]  # captions mark nothing


def test_the_split_whose_pictures_are_there(tmp_path: Path) -> None:
    """Each split has a picture of the same name."""
    for split, left in (("train2017", 2), ("val2017", 20)):
        put(tmp_path / f"annotations/instances_{split}.json", coco(left=left))
    paint(tmp_path / "val2017/a.jpg")
    assert left_edges(tmp_path) == left_edges(tmp_path / "annotations") == [20]
    paint(tmp_path / "train2017/a.jpg", width=80, height=60)
    with pytest.raises(GarCalibrationError, match=r"2 COCO files .*name one"):
        folder(tmp_path, None, PROMPTS)
    [sample] = folder(tmp_path / "annotations/instances_val2017.json", None, PROMPTS)
    assert sample.image.shape == (30, 40, 3)


def test_lvis_names_pictures_by_address_and_windows_by_backslash(tmp_path: Path) -> None:
    address = "http://images.cocodataset.org/train2017/000000000001.jpg"
    put(tmp_path / "lvis/lvis_v1_val.json", coco(file_name=None, coco_url=address))
    paint(tmp_path / "lvis/train2017/000000000001.jpg")
    assert left_edges(tmp_path / "lvis") == [2]
    put(tmp_path / "windows/result.json", coco("images\\a.jpg"))
    paint(tmp_path / "windows/images/a.jpg")
    assert left_edges(tmp_path / "windows") == [2]


@pytest.mark.parametrize("name", ["../a.jpg", "..\\a.jpg", "x/..\\../a.jpg"])
def test_no_name_leads_out_of_the_data_set(tmp_path: Path, name: str) -> None:
    put(tmp_path / "set/annotations/instances_x.json", coco(name))
    paint(tmp_path / "a.jpg")
    paint(tmp_path / "set/a.jpg")
    with pytest.raises(GarCalibrationError, match="lies outside the folder"):
        list(folder(tmp_path / "set", None, PROMPTS))


def test_masks_are_still_found_where_annotations_hold_something_else(tmp_path: Path) -> None:
    put(tmp_path / "annotations/notes.json", {"about": "something else"})
    paint(tmp_path / "a.jpg")
    save_mask(tmp_path / "a_mask.png", square(7, 3))
    assert left_edges(tmp_path) == [7]


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "images/a.jpg")
    (tmp_path / "annotations.xml").write_text("<annotations/>")
    with pytest.raises(GarCalibrationError, match=r"annotations\.xml is CVAT's own format; export it as COCO"):
        folder(tmp_path, None, PROMPTS)
    put(tmp_path / "notes.json", [1])
    with pytest.raises(GarCalibrationError, match=r"notes\.json: not COCO annotations"):
        folder(tmp_path / "notes.json", None, PROMPTS)
