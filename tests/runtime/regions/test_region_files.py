"""Files of regions: every kind they may hold, and what is said of those that cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.refusals import refused
from PIL import Image

from gar_edge.runtime.regions import Box, Points, Polygons, Runs, find_mask
from gar_edge.runtime.regions.files import read_regions

LABELS = np.array([[0, 3, 3], [7, 0, 3]])


def write(folder: Path, data: Any) -> Path:
    path = folder / "regions.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


RLE = {"size": [2, 5], "counts": "234N"}


def test_regions_of_every_kind_in_one_file(tmp_path: Path) -> None:
    entry = {
        "regions": [
            {"box": [1, 2, 3, 4]},
            {"points": [[0.5, 0.5]], "not_points": [[0, 0]]},
            {"points": [[5, 5]], "box": [0.0, 0.0, 1.0, 0.5]},
            RLE,
            {"polygons": [[2, 1, 5, 1, 5, 3, 2, 3]]},
        ]
    }
    found = read_regions(write(tmp_path, entry), "photo.png")
    assert found == {
        0: Box(1, 2, 3, 4),
        1: Points(((0.5, 0.5),), ((0, 0),), fractions=True),
        2: Points(((5, 5),), box=Box(0, 0, 1, 0.5, fractions=True)),
        3: Runs(5, 2, "234N"),
        4: Polygons([[2, 1, 5, 1, 5, 3, 2, 3]]),
    }


def test_masks_are_named_relative_to_the_file(tmp_path: Path) -> None:
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "labels.png")
    Image.fromarray((LABELS == 3).astype(np.uint8)).save(tmp_path / "mask.png")
    regions = {"4": {"mask": "labels.png", "label": 7}, "2": {"mask": "mask.png"}}
    found = read_regions(write(tmp_path, regions), "photo.png")
    picture = np.zeros((2, 3, 3), np.uint8)
    np.testing.assert_array_equal(find_mask(found[4], picture), LABELS == 7)
    np.testing.assert_array_equal(find_mask(found[2], picture), LABELS == 3)
    with refused(r"labels.png: has 3 values \(0, 3, 7\)", "FILE#LABEL"):
        find_mask(read_regions(write(tmp_path, {"mask": "labels.png"}), "photo.png")[0], picture)
    with refused("labels.png: no pixel has the label 9"):
        find_mask(read_regions(write(tmp_path, {"mask": "labels.png", "label": 9}), "photo.png")[0], picture)


def test_entries_are_chosen_by_the_pictures_name(tmp_path: Path) -> None:
    entries = [{"image": "images/a.png", "mask_rles": [RLE]}, {"image": "images/b.png", "mask_rles": [RLE, RLE]}]
    path = write(tmp_path, entries)
    assert list(read_regions(path, "elsewhere/b.png")) == [0, 1]
    with refused("regions.json: has 0 entries about c.png"):
        read_regions(path, "c.png")
    with refused("regions.json: has 0 entries about c.png; it has images/a.png"):  # the only one is not this one
        read_regions(write(tmp_path, entries[:1]), "c.png")


def test_coco_gives_outlines_runs_and_boxes(tmp_path: Path) -> None:
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 5, "height": 2}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 1, "segmentation": [[1, 0, 3, 0, 3, 2, 1, 2]]},
            {"image_id": 2, "segmentation": RLE},
            {"image_id": 1, "segmentation": RLE},
            {"image_id": 1, "bbox": [1, 0, 2, 2]},
            {"image_id": 1, "caption": "nothing"},
        ],
    }
    found = read_regions(write(tmp_path, coco), "a.png")
    assert found == {0: Polygons([[1, 0, 3, 0, 3, 2, 1, 2]], (5, 2)), 1: Runs(5, 2, "234N"), 2: Box(1, 0, 3, 2)}


def test_labelme_gives_polygons_rectangles_and_circles(tmp_path: Path) -> None:
    shapes = [
        {"label": "cup", "points": [[1, 0], [4, 0], [4, 2], [1, 2]], "shape_type": "polygon"},
        {"points": [[4, 3], [1, 1]], "shape_type": "rectangle"},
        {"points": [[2.5, 2.5], [3.5, 2.5]], "shape_type": "circle"},
    ]
    found = read_regions(write(tmp_path, {"shapes": shapes, "imageWidth": 6, "imageHeight": 4}), "a.png")
    picture = np.zeros((4, 6, 3), np.uint8)
    masks = [find_mask(region, picture).astype(int).tolist() for region in found.values()]
    # labelme's own rule: outlines belong to what they enclose.
    assert masks[0] == [[0, 1, 1, 1, 1, 0]] * 3 + [[0] * 6]
    assert masks[1] == [[0] * 6] + [[0, 1, 1, 1, 1, 0]] * 3
    assert masks[2] == [[0] * 6, [0, 0, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ("{", ("not JSON", "correct or remove")),
        ("[" * 100_000, ("not JSON",)),
        ([], ("marks no region",)),
        ({}, ("the file", "an object with box")),
        ([{"box": [1, 2, 3]}], (r"\[0\].box", "left, upper, right, lower")),
        ([{"box": [1, 2, "3", 4]}], (r"\[0\].box\[2\]", "a number")),
        ([{"box": [5, 2, 3, 4]}], (r"\[0\].box", "no extent")),
        ([{"points": [[1, 2, 3]]}], (r"points\[0\]", "x, y")),
        ([{"box": [0, 0, 10**400, 1]}], ("box", "range of")),
        ([{"points": [[0, 10**400]]}], (r"points\[0\]", "x, y")),
        ([{"points": []}], ("no point lies inside",)),
        ([{"size": [2, 5], "counts": 7}], ("counts", "a list")),
        ([{"mask": 3}], ("mask", "a text")),
        ([{"polygon": []}], ("an object with",)),
        ({"mask_rles": [{"size": [2, 5]}]}, (r"mask_rles\[0\].counts is missing",)),
        ({"shapes": [{"shape_type": "line", "points": []}]}, ("shape_type", "polygon, rectangle, circle or mask")),
        ({"shapes": [{"shape_type": "circle", "points": [[1, 1]]}]}, ("points", "two points")),
        ({"images": [], "annotations": []}, ("0 entries",)),
        (7, ("the file is 7",)),
    ],
)
def test_files_that_cannot_be_used_name_the_place(tmp_path: Path, data: Any, parts: tuple[str, ...]) -> None:
    with refused("regions.json", *parts):
        read_regions(write(tmp_path, data), "a.png")


def test_a_missing_regions_file_is_named(tmp_path: Path) -> None:
    with refused("none.json", "No such file"):
        read_regions(tmp_path / "none.json", "a.png")
