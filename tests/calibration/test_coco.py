"""Calibration samples from COCO annotations: every form of region, every format of question, bad input named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.sample_files import PROMPTS, check, paint, rle, same, square, write
from helpers.spoilt import one_line

from gar_edge.calibration.samples import folder
from gar_edge.runtime.errors import GarCalibrationError


def coco(path: Path, pictures: int = 3) -> dict[str, Any]:
    """A COCO set in which every picture has a polygon, both kinds of run lengths, and a box alone."""
    images, annotations = [], []
    for index in range(pictures):
        paint(path / f"{index}.jpg", shade=index)
        images.append({"id": index + 10, "file_name": f"{index}.jpg", "width": 40, "height": 30})
        shapes = [
            [[2, 3, 8, 3, 8, 9, 2, 9]],
            rle(square(12, 5)),
            rle(square(22, 9), compressed=False),
            [],
        ]
        annotations += [{"image_id": index + 10, "segmentation": shape, "bbox": [1, 2, 3, 4]} for shape in shapes]
    return {"info": {}, "images": images, "annotations": annotations}


def test_coco_regions_of_every_form_are_read(tmp_path: Path) -> None:
    write(tmp_path / "instances.json", coco(tmp_path))
    chosen = folder(tmp_path, None, PROMPTS)
    found = list(chosen)
    for sample in found:
        check(sample)
    assert chosen.skipped == []
    assert "instances.json" in chosen.description
    marked: dict[str, set[bytes]] = {}
    for sample in found:
        marked.setdefault(sample.name, set()).update(mask.tobytes() for mask in sample.masks.values())
    expected = {mask.tobytes() for mask in (square(2, 3), square(12, 5), square(22, 9))}
    assert marked == {f"{index}.jpg": expected for index in range(3)}
    assert sum(len(sample.masks) for sample in found) == 9  # each once


def test_coco_images_may_lie_in_a_folder_of_their_own_and_lack_a_size(tmp_path: Path) -> None:
    data = coco(tmp_path / "images", pictures=1)
    for key in ("width", "height"):
        del data["images"][0][key]
    write(tmp_path / "a.json", data)
    write(tmp_path / "notes.json", {"about": "something else"})
    assert sum(len(sample.masks) for sample in folder(tmp_path, None, PROMPTS)) == 3


def test_polygons_are_drawn_at_the_annotated_size(tmp_path: Path) -> None:
    data = coco(tmp_path, pictures=1)
    data["images"][0] |= {"width": 80, "height": 60}
    data["annotations"] = data["annotations"][:1]
    data["annotations"][0]["segmentation"] = [[4, 6, 16, 6, 16, 18, 4, 18], [60, 40, 70, 40, 70, 50, 60, 50]]
    write(tmp_path / "a.json", data)
    (sample,) = folder(tmp_path, None, PROMPTS)
    expected = square(2, 3) | square(30, 20, side=5)
    np.testing.assert_array_equal(next(iter(sample.masks.values())), expected)


def test_many_regions_make_samples_of_every_format_and_pictures_come_before_repeats(tmp_path: Path) -> None:
    data = coco(tmp_path, pictures=4)
    data["annotations"] *= 6
    write(tmp_path / "a.json", data)
    everything = list(folder(tmp_path, None, PROMPTS))
    formats = {(len(sample.masks), sample.question is None) for sample in everything}
    assert formats >= {(1, True), (1, False), (2, False), (3, False)}
    for sample in everything:
        check(sample)
    for seed in range(3):
        some = folder(tmp_path, 8, PROMPTS, seed)
        assert Counter(sample.name for sample in some) == {f"{index}.jpg": 2 for index in range(4)}
        assert same(some, folder(tmp_path, 8, PROMPTS, seed))
    assert not same(folder(tmp_path, 8, PROMPTS, 0), folder(tmp_path, 8, PROMPTS, 1))


@pytest.mark.parametrize(("regions", "formats"), [(1, {1}), (2, {1, 2}), (3, {1, 2, 3})])
def test_pictures_of_few_regions_still_give_all_formats_they_can(
    tmp_path: Path, regions: int, formats: set[int]
) -> None:
    data = coco(tmp_path, pictures=6)
    data["annotations"] = [annotation for i, annotation in enumerate(data["annotations"]) if i % 4 < regions]
    write(tmp_path / "a.json", data)
    found = list(folder(tmp_path, None, PROMPTS))
    assert {len(sample.masks) for sample in found} == formats
    assert {sample.question is None for sample in found if len(sample.masks) == 1} == {True, False}


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ([[1, 2, 3, 4]], "a polygon of 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
        ([[1, 2, 3, 1e300, 5, 6]], "leaves the range"),
        ([[1, 2, 3, float("nan"), 5, 6]], "leaves the range"),
        ([[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]], "marks no pixel"),
        ([[1, 2, 3, 10**400, 5, 6]], "leaves the range"),
    ],
)
def test_a_polygon_that_cannot_be_used_is_skipped(tmp_path: Path, segmentation: Any, why: str) -> None:
    data = coco(tmp_path, pictures=2)
    data["annotations"] = [data["annotations"][0] | {"segmentation": segmentation}, data["annotations"][4]]
    write(tmp_path / "a.json", data)
    chosen = folder(tmp_path, None, PROMPTS)
    assert [sample.name for sample in chosen] == ["1.jpg"]
    (note,) = chosen.skipped
    assert note.startswith("0.jpg: ")
    assert why in note


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"images": {}}, ("images", "a list")),
        ({"images": [{"file_name": "0.jpg"}]}, ("images[0].id", "missing")),
        ({"images": [{"id": 10}]}, ("images[0].file_name", "missing")),
        ({"images": [{"id": 10, "file_name": "0.jpg", "width": "x", "height": 3}]}, ("images[0].width", '"x"')),
        ({"images": []}, ("annotations[0].image_id", "is 10")),
        ({"annotations": [3]}, ("annotations[0]", "an object")),
        ({"annotations": [{"image_id": 10, "segmentation": "x"}]}, ("annotations[0].segmentation", "a list")),
        ({"annotations": [{"image_id": 10, "segmentation": [["x"]]}]}, ("segmentation[0][0]", "a number")),
        ({"annotations": [{"image_id": 10, "segmentation": {"counts": 5}}]}, ("segmentation.counts", "a list")),
        ({"annotations": [{"image_id": 10}]}, ("no regions",)),
        ({"annotations": []}, ("no regions",)),
    ],
)
def test_a_wrong_coco_file_names_file_and_field(tmp_path: Path, change: dict[str, Any], parts: tuple[str, ...]) -> None:
    write(tmp_path / "a.json", coco(tmp_path, pictures=1) | change)
    with pytest.raises(GarCalibrationError) as error:
        folder(tmp_path, None, PROMPTS)
    one_line(error, "a.json", *parts)


def test_of_two_coco_files_one_must_go(tmp_path: Path) -> None:
    for name in ("train.json", "val.json"):
        write(tmp_path / name, coco(tmp_path))
    with pytest.raises(GarCalibrationError) as error:
        folder(tmp_path, None, PROMPTS)
    one_line(error, "train.json, val.json", "leave one")


def test_a_bad_annotation_costs_itself_alone(tmp_path: Path) -> None:
    data = coco(tmp_path, pictures=1)
    data["annotations"] += [{"image_id": 10, "segmentation": [[5.0, 5.0]]}, {"image_id": 99, "segmentation": []}, 7]
    write(tmp_path / "a.json", data)
    chosen = folder(tmp_path, None, PROMPTS)
    assert sum(len(sample.masks) for sample in chosen) == 3
    notes = sorted(chosen.skipped)
    assert len(notes) == 3
    assert notes[0].startswith("0.jpg: annotations[4].segmentation: a polygon of 2 numbers")
    assert notes[1].startswith("annotations[5].image_id is 99, which images lacks")
    assert notes[2].startswith("annotations[6] is 7")


def test_fractions_and_back_slashes_are_read(tmp_path: Path) -> None:
    data = coco(tmp_path / "images", pictures=1)
    data["images"][0]["file_name"] = "images\\0.jpg"
    data["annotations"] = [{"image_id": 10, "segmentation": [[0.05, 0.1, 0.2, 0.1, 0.2, 0.3, 0.05, 0.3]]}]
    write(tmp_path / "a.json", data)
    (sample,) = folder(tmp_path, None, PROMPTS)
    np.testing.assert_array_equal(next(iter(sample.masks.values())), square(2, 3))
