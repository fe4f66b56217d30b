"""Inputs of gar-label: every region becomes a row, and means the pixels that its tool says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.drawn_coco import drawn_coco
from helpers.needs import from_dev
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.files.fields import Field
from gar_edge.runtime.label.entry import Entry
from gar_edge.runtime.label.inputs import Input
from gar_edge.runtime.label.parquet_input import Cells
from gar_edge.runtime.regions.files import entry_regions, in_folder
from gar_edge.runtime.regions.find import find_mask

SIZE = (60, 40)  # width, height


def entries(path: Path, question: str | None = None, pictures: Path | None = None) -> list[Entry]:
    return list(Input(path, pictures).entries(question))


def mask_of(entry: Entry, folder: Path) -> np.ndarray:
    """The pixels of an entry's one region, in the picture that it names."""
    assert entry.error is None, entry.error
    with Image.open(folder / entry.value["image"]) as picture:
        image = np.asarray(picture.convert("RGB"))
    ((_, region),) = entry_regions(Field("entry", entry.value), in_folder(folder)).items()
    return find_mask(region, image)


def save_picture(path: Path, colour: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (colour, 120, 60)).save(path)
    return path


def coco(images: list[dict[str, Any]], annotations: list[Any]) -> str:
    return json.dumps({"info": {}, "images": images, "annotations": annotations})


ROUND = {"segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]], "bbox": [10, 10, 20, 20]}


def test_coco_regions_are_those_of_pycocotools(tmp_path: Path) -> None:
    path = drawn_coco(tmp_path, 40)
    value = json.loads(path.read_text())
    for annotation in value["annotations"][::3]:  # outlines, too
        left, upper, width, height = annotation["bbox"]
        corners = [left, upper, left + width, upper, left + width, upper + height]
        annotation["segmentation"] = [corners]
    path.write_text(json.dumps(value))
    truth = COCO(str(path))
    found = entries(path)
    assert [entry.value["id"] for entry in found] == [one["id"] for one in value["annotations"]]
    for entry in found:
        assert np.array_equal(mask_of(entry, tmp_path), truth.annToMask(truth.anns[entry.value["id"]]) > 0)
        assert entry.value["image"] == truth.imgs[entry.value["origin"]["image_id"]]["file_name"]


def test_annotations_may_stand_before_the_pictures(tmp_path: Path) -> None:
    path = drawn_coco(tmp_path, 6)
    first = [entry.value for entry in entries(path)]
    value = json.loads(path.read_text())
    path.write_text(json.dumps({"annotations": value["annotations"], "images": value["images"]}))
    assert [entry.value for entry in entries(path)] == first


def test_lvis_names_addresses_whose_ends_are_files(tmp_path: Path) -> None:
    save_picture(tmp_path / "val2017" / "0001.jpg")
    image = {"id": 5, "coco_url": "http://images.cocodataset.org/val2017/0001.jpg", "width": 60, "height": 40}
    path = tmp_path / "lvis.json"
    path.write_text(coco([image], [{"id": 9, "image_id": 5, **ROUND}]))
    (one,) = entries(path)
    assert one.value["image"] == "val2017/0001.jpg"
    assert mask_of(one, tmp_path).sum() == 20 * 20
    (alone,) = entries(path, pictures=tmp_path / "val2017")
    assert alone.value["image"] == "val2017/0001.jpg"


def test_cvats_folders_are_found(tmp_path: Path) -> None:
    save_picture(tmp_path / "images" / "default" / "one.png")
    path = tmp_path / "annotations" / "instances_default.json"
    path.parent.mkdir()
    image = {"id": 1, "file_name": "one.png", "width": 60, "height": 40}
    path.write_text(coco([image], [{"id": 1, "image_id": 1, **ROUND}]))
    (one,) = entries(tmp_path)
    assert one.value["image"] == "images/default/one.png"


def test_what_is_wrong_in_coco_is_that_rows_error(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    path = tmp_path / "bad.json"
    good = {"id": 1, "file_name": "a.png", "width": 60, "height": 40}
    images: list[Any] = [good, {"id": 2}, "nothing", {"file_name": "no id"}]
    annotations = [{"id": 1, "image_id": 1, **ROUND}, {"id": 2, "image_id": 7, **ROUND}, {"id": 3, "image_id": 2}, "no"]
    path.write_text(coco(images, annotations))
    found = entries(path)
    assert [entry.error is None for entry in found] == [True, False, False, False]
    assert "annotations[1]: the file has no picture of id 7" in str(found[1].error)


def test_labelmes_shapes_of_a_group_are_one_row(tmp_path: Path) -> None:
    save_picture(tmp_path / "one.png")
    shapes = [
        {"label": "cup", "points": [[5, 5], [15, 5], [15, 15], [5, 15]], "group_id": 1, "shape_type": "polygon"},
        {"label": "plate", "points": [[30, 10], [40, 20]], "group_id": None, "shape_type": "rectangle"},
        {"label": "cup", "points": [[20, 5], [25, 5], [25, 15]], "group_id": 1, "shape_type": "polygon"},
    ]
    value = {"version": "6", "shapes": shapes, "imagePath": "one.png", "imageWidth": 60, "imageHeight": 40}
    (tmp_path / "one.json").write_text(json.dumps(value))
    cup, plate = entries(tmp_path)
    drawn = Image.new("L", SIZE)
    for shape in (shapes[0], shapes[2]):
        ImageDraw.Draw(drawn).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
    assert np.array_equal(mask_of(cup, tmp_path), np.asarray(drawn) > 0)
    assert mask_of(plate, tmp_path).sum() == 11 * 11


def test_a_broken_file_of_a_folder_is_a_row_and_alone_it_ends_the_run(tmp_path: Path) -> None:
    save_picture(tmp_path / "one.png")
    (tmp_path / "a.json").write_text('{"shapes": [')
    (tmp_path / "b.json").write_text('{"other": 1}')
    (tmp_path / "c.json").write_text(json.dumps([{"image": "one.png", "regions": [{"box": [1, 1, 9, 9]}]}]))
    found = entries(tmp_path)
    assert [entry.error is None for entry in found] == [False, False, True]
    for name in ("a.json", "b.json"):
        with pytest.raises(GarPromptError, match=name):
            entries(tmp_path / name)


@pytest.mark.parametrize(
    "value",
    [
        {"images": [], "annotations": []},
        {"info": {"year": 2026}, "licenses": [], "annotations": [], "images": [{"id": 1, "file_name": "one.png"}]},
        {"version": "5.0.0", "flags": {}, "shapes": [], "imagePath": "one.png"},
        [],
    ],
    ids=["coco", "coco with pictures", "labelme", "jobs"],
)
def test_a_file_without_regions_has_no_rows(tmp_path: Path, value: Any) -> None:
    """As of a picture on which nobody has drawn yet."""
    path = tmp_path / "nothing.json"
    path.write_text(json.dumps(value))
    assert entries(path) == entries(tmp_path) == []


def test_jobs_files_are_named_relative_to_themselves(tmp_path: Path) -> None:
    save_picture(tmp_path / "deep" / "one.png")
    Image.new("L", SIZE, 255).save(tmp_path / "deep" / "mask.png")
    jobs = [{"image": "one.png", "regions": [{"mask": "mask.png"}]}, {"image": str(tmp_path / "deep" / "one.png")}]
    (tmp_path / "deep" / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)) + "\nnot json\n")
    first, second, third = entries(tmp_path)
    assert (first.value["image"], first.value["regions"]) == ("deep/one.png", [{"mask": "deep/mask.png"}])
    assert second.value["image"] == str(tmp_path / "deep" / "one.png")
    assert third.error is not None
    assert "jobs.jsonl: [2] is not JSON" in third.error


def test_regions_of_one_entry_are_a_row_each_unless_they_are_asked_about_together(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    boxes = [{"box": [1, 1, 9, 9]}, {"box": [10, 1, 19, 9]}]
    own = {"image": "a.png", "question": "Is <Prompt0> on <Prompt1>?", "regions": boxes}
    path.write_text(json.dumps([{"image": "a.png", "regions": boxes}, own]))
    assert [len(entry.value["regions"]) for entry in entries(path)] == [1, 1, 2]
    asked = entries(path, "What is <Prompt0>?")
    assert [entry.value["question"] for entry in asked] == ["What is <Prompt0>?"] * 2 + [own["question"]]
    together = entries(path, "Is <Prompt0> above <Prompt1>?")
    assert [len(entry.value["regions"]) for entry in together] == [2, 2]


@pytest.mark.parametrize("name", ["none.json", "picture.png", "empty"])
def test_what_is_no_input_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    save_picture(tmp_path / "picture.png")
    with pytest.raises(GarPromptError, match=name):
        entries(tmp_path / name)


class TestParquet:
    """Parquet, written by pyarrow."""

    @pytest.fixture(autouse=True)
    def _pyarrow(self) -> None:
        pytest.importorskip("pyarrow", reason=from_dev("pyarrow"))

    def write(self, path: Path, columns: dict[str, Any], rows: int = 3) -> Path:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), path, row_group_size=rows)
        return path

    def test_pictures_and_masks_inside_it_come_back_byte_for_byte(self, tmp_path: Path) -> None:
        pictures = [png(number) for number in range(20)]
        masks = [[png(100 + number), png(200 - number)] for number in range(20)]
        path = self.write(tmp_path / "data.parquet", {"image": pictures, "masks": masks, "id": list(range(20))})
        found = entries(path)
        assert len(found) == 40  # two regions each
        assert [entry.value["id"] for entry in found] == [number for number in range(20) for _ in range(2)]
        cells = Cells(tmp_path)
        for number in (0, 1, 7, 19, 3):  # onwards, and back
            assert cells(found[2 * number].value["image"]) == pictures[number]
            assert cells(found[2 * number + 1].value["regions"][0]["mask"]) == masks[number][1]
        assert cells("photo.png") is None

    def test_structs_with_bytes_and_paths_as_datasets_has_them(self, tmp_path: Path) -> None:
        image = [{"bytes": png(7), "path": "x.png"}]
        path = self.write(tmp_path / "data.parquet", {"image": image, "box": [[1.0, 1.0, 9.0, 9.0]]})
        (one,) = entries(path)
        assert one.value["regions"] == [{"box": [1.0, 1.0, 9.0, 9.0]}]
        assert Cells(tmp_path)(one.value["image"]) == png(7)

    def test_paths_run_lengths_and_json_are_taken(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "a.png")
        truth = COCO(str(drawn_coco(tmp_path / "drawn", 1)))
        rle = truth.anns[1]["segmentation"]
        self.write(tmp_path / "rle.parquet", {"image": ["drawn/000000.png"], "rle": [rle], "question": [None]})
        regions = [json.dumps([{"box": [1, 1, 9, 9], "as_mask": True}])]
        self.write(tmp_path / "text.parquet", {"image": ["a.png"], "regions": regions, "question": ["<Prompt0>?"]})
        (tmp_path / "drawn" / "annotations.json").unlink()
        first, second = entries(tmp_path)
        assert np.array_equal(mask_of(first, tmp_path), truth.annToMask(truth.anns[1]) > 0)
        assert mask_of(second, tmp_path).sum() == 64
        assert second.value["question"] == "<Prompt0>?"

    def test_bad_rows_are_rows_and_bad_files_say_what_is_missing(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "bad.parquet", {"image": ["a.png", "b.png"], "regions": ["[", "[]"]})
        first, second = entries(path)
        assert "[0].regions is not JSON" in str(first.error)
        assert second.error is None
        with pytest.raises(GarPromptError, match="has columns picture; image is needed"):
            entries(self.write(tmp_path / "other.parquet", {"picture": ["a.png"]}))
        (tmp_path / "none.parquet").write_bytes(b"PAR1 nothing")
        with pytest.raises(GarPromptError, match=r"none.parquet: no Parquet"):
            entries(tmp_path / "none.parquet")


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), grey).save(file, "PNG")
    return file.getvalue()
