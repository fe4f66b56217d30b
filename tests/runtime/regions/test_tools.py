"""What other tools write: each row of docs/regions.md's table, on files and objects in the tool's own form."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.refusals import refused
from PIL import Image
from pycocotools import mask as coco_mask

from gar_edge.runtime.cli.region_options import RegionArguments, cut_out, read_arguments
from gar_edge.runtime.regions import Box, box_mask, find_mask

WIDTH, HEIGHT = 60, 40
REGION = np.zeros((HEIGHT, WIDTH), bool)
REGION[10:30, 20:45] = True
OTHER = np.zeros_like(REGION)
OTHER[2:8, 50:58] = True
PICTURE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
CORNERS = [20, 10, 45, 10, 45, 30, 20, 30]  # the region's outline
LETTERBOXED = (64, 64)  # what YOLO infers on

Found = np.ndarray


def by_option(folder: Path, **options: str) -> Found:
    """The only region that gar-run's options give, of scene.png."""
    arguments = RegionArguments(**{name: [text] for name, text in options.items()})
    (mask,) = cut_out(read_arguments(arguments, str(folder / "scene.png"), True), PICTURE, box_mask).values()
    return mask


def in_python(region: Any) -> Found:
    return find_mask(region, PICTURE, box_mask)


def written(folder: Path, name: str, data: Any) -> str:
    (folder / name).write_text(json.dumps(data))
    return str(folder / name)


def painted(folder: Path, name: str, values: np.ndarray, colours: list[int] | None = None) -> str:
    image = Image.fromarray(values, "P" if colours else None)
    if colours:
        image.putpalette(colours)
    image.save(folder / name)
    return str(folder / name)


def of_library(module: str, name: str, **fields: Any) -> Any:
    """An object that is known by its type's name, as Ultralytics' and supervision's are."""
    methods = {key: value for key, value in fields.items() if callable(value)}
    made = type(name, (), {"__module__": module, **methods})()
    for key, value in fields.items():
        if key not in methods:
            setattr(made, key, value)
    return made


def coco(name: str | None, segmentation: Any, **image: Any) -> dict[str, Any]:
    entry = {"id": 7, "width": WIDTH, "height": HEIGHT, **({"file_name": name} if name else {}), **image}
    other = {"id": 8, "width": 5, "height": 5, "file_name": "other.png"}
    annotation = {"image_id": 7, "category_id": 1, "bbox": [20, 10, 25, 20], "area": 500, "iscrowd": 0}
    return {
        "images": [other, entry],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [{**annotation, "id": 31, "segmentation": segmentation}],
    }


def ultralytics(folder: Path) -> Found:
    data = torch.zeros(1, *LETTERBOXED)
    data[:, 10:30, 20:45] = 1
    outline = np.array(CORNERS, np.float32).reshape(-1, 2)
    masks = of_library(
        "ultralytics.engine.results", "Masks", xy=[outline], data=data, orig_shape=(HEIGHT, WIDTH), __len__=lambda _: 1
    )
    boxes = of_library(
        "ultralytics.engine.results", "Boxes", xyxy=torch.tensor([[20.0, 10, 45, 30]]), orig_shape=(HEIGHT, WIDTH),
        __len__=lambda _: 1,
    )  # fmt: skip
    result = of_library("ultralytics.engine.results", "Results", masks=masks, boxes=boxes, orig_shape=(HEIGHT, WIDTH))
    box_alone = of_library("ultralytics.engine.results", "Results", masks=None, boxes=boxes, orig_shape=(HEIGHT, WIDTH))
    for given in (result, masks):
        np.testing.assert_array_equal(in_python(given), REGION)
    with refused("of another shape"):
        in_python(data[0])  # the letterboxed mask itself
    return in_python(box_alone)


def supervision(folder: Path) -> Found:
    xyxy = np.array([[20.0, 10, 45, 30], [50, 2, 58, 8]])

    def detections(chosen: slice, masks: bool) -> Any:
        stack = np.stack([REGION, OTHER])[chosen] if masks else None
        return of_library("supervision.detection.core", "Detections", xyxy=xyxy[chosen], mask=stack)

    np.testing.assert_array_equal(in_python(detections(slice(0, 1), False)), REGION)
    with refused(r"supervision.detection.core.Detections holds 2 regions; give one of them, e.g. detections\[0\]"):
        in_python(detections(slice(0, 2), True))
    return in_python(detections(slice(0, 1), True))


def sam(folder: Path) -> Found:
    generated = {"segmentation": REGION, "bbox": [20, 10, 25, 20], "area": 500, "predicted_iou": 0.9}
    packed = coco_mask.encode(np.asfortranarray(REGION.astype(np.uint8)))
    for given in (generated, {**generated, "segmentation": packed}, packed, torch.tensor(REGION)[None]):
        np.testing.assert_array_equal(in_python(given), REGION)
    dataset = {"image": {"image_id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "scene.png"}}
    runs = {"size": packed["size"], "counts": packed["counts"].decode()}
    path = written(folder, "sa_1.json", {**dataset, "annotations": [{"id": 5, "segmentation": runs}]})
    np.testing.assert_array_equal(by_option(folder, regions=path), REGION)
    padded = np.zeros((256, 256), bool)
    with refused("of another shape; it looks padded"):
        in_python(padded | True)
    return in_python(REGION)


def labelme(folder: Path) -> Found:
    # labelme draws outlines too: the last pixel is a corner.
    shapes = [
        {"label": "tip", "points": [[30, 20]], "group_id": None, "shape_type": "point", "flags": {}},
        {"label": "cup", "points": [[20, 10], [44, 29]], "group_id": None, "shape_type": "rectangle", "flags": {}},
    ]
    sides = {"imageWidth": WIDTH, "imageHeight": HEIGHT, "imageData": None}
    with pytest.warns(UserWarning, match=r'shapes\[0\].shape_type is "point".*left out'):
        return by_option(
            folder,
            regions=written(
                folder, "a.json", {"version": "5.8.1", "imagePath": "scene.png", "shapes": shapes, **sides}
            ),
        )


def x_anylabeling(folder: Path) -> Found:
    shape = {
        "label": "cup", "score": None, "points": [[20, 10], [44, 10], [44, 29], [20, 29]], "group_id": None,
        "difficult": False, "shape_type": "rectangle", "attributes": {},
    }  # fmt: skip
    data = {
        "version": "2.5.4",
        "shapes": [shape],
        "imagePath": "..\\images\\scene.png",
        "imageWidth": WIDTH,
        "imageHeight": HEIGHT,
    }
    return by_option(folder, regions=written(folder, "a.json", data))


def cvat(folder: Path) -> Found:
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[REGION], colours[OTHER] = (250, 50, 83), (61, 245, 61)
    path = painted(folder, "SegmentationObject.png", colours)
    np.testing.assert_array_equal(by_option(folder, mask=f"{path}#{250 + 256 * 50 + 65536 * 83}"), REGION)
    with refused("has 3 colours"):
        by_option(folder, mask=path)
    return by_option(folder, regions=written(folder, "instances_default.json", coco("train/scene.png", [CORNERS])))


def packed_brush(values: np.ndarray) -> list[int]:
    """Label Studio's bit stream, written by hand: runs of one value, and one at a time where that is shorter."""
    bits = f"{len(values):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    starts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for first, end in itertools.pairwise(starts):
        length = end - first
        if length <= 8:
            bits += "0" + "00" + f"{length - 1:03b}" + "".join(f"{value:08b}" for value in values[first:end])
        else:
            bits += "1" + "11" + f"{length - 1:016b}" + f"{values[first]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def label_studio(folder: Path) -> Found:
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[REGION] = (30, 60, 90, 255)
    sides = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
    percent = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in zip(CORNERS[::2], CORNERS[1::2], strict=True)]
    values = {
        "brushlabels": {"format": "rle", "rle": packed_brush(rgba.ravel()), "brushlabels": ["cup"]},
        "polygonlabels": {"points": percent, "closed": True, "polygonlabels": ["cup"]},
        "rectanglelabels": {"x": 100 * 20 / WIDTH, "y": 25, "width": 100 * 25 / WIDTH, "height": 50, "rotation": 0},
    }
    for kind, value in values.items():
        choice = {"type": "choices", "value": {"choices": ["indoors"]}, "from_name": "where", "to_name": "image"}
        results = [choice, {"type": kind, "id": "aB3", "value": value, **sides}]
        names = ("/data/upload/1/0a1b2c3d-scene.png", "/data/upload/1/0a1b2c3d-other.png")
        tasks = [
            {"id": n, "data": {"image": name}, "annotations": [{"result": results}]} for n, name in enumerate(names)
        ]
        tasks[1]["annotations"] = []
        found = by_option(folder, regions=written(folder, "project.json", tasks))
        np.testing.assert_array_equal(found, REGION)
    return found


def roboflow(folder: Path) -> Found:
    data = coco("scene_png.rf.9f3c0c.jpg", [CORNERS], extra={"name": "scene.png"})
    return by_option(folder, regions=written(folder, "_annotations.coco.json", data))


def coco_itself(folder: Path) -> Found:
    packed = coco_mask.encode(np.asfortranarray(REGION.astype(np.uint8)))
    runs = {"size": packed["size"], "counts": packed["counts"].decode()}
    for segmentation in ([CORNERS], runs, []):  # outlines, run lengths, a box alone
        path = written(folder, "instances_val2017.json", coco("scene.png", segmentation))
        np.testing.assert_array_equal(by_option(folder, regions=path), REGION)
    return by_option(folder, regions=f"{path}#31")


def lvis(folder: Path) -> Found:
    data = coco(None, [CORNERS], coco_url="http://images.cocodataset.org/val2017/scene.png")
    return by_option(folder, regions=written(folder, "lvis_v1_val.json", data))


def voc(folder: Path) -> Found:
    values = np.where(REGION, 1, np.where(OTHER, 2, 0)).astype(np.uint8)
    values[0] = 255
    path = painted(folder, "SegmentationObject.png", values, [0, 0, 0, 128, 0, 0, 0, 128, 0] + [224, 224, 192] * 253)
    with pytest.warns(UserWarning, match="label 255 is left out"):
        assert list(read_arguments(RegionArguments(regions=[path]), "scene.png", False)) == [0, 1]
    return by_option(folder, mask=f"{path}#1")


def cityscapes(folder: Path) -> Found:
    values = np.where(REGION, 26001, np.where(OTHER, 26002, 7)).astype(np.uint16)
    return by_option(folder, mask=f"{painted(folder, 'gtFine_instanceIds.png', values)}#26001")


def panoptic(folder: Path) -> Found:
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[REGION], colours[OTHER] = (222, 20, 1), (44, 1, 0)
    return by_option(folder, regions=f"{painted(folder, 'panoptic.png', colours)}#{222 + 256 * 20 + 65536}")


def ros(folder: Path) -> Found:
    message = SimpleNamespace(height=HEIGHT, width=WIDTH, step=WIDTH + 4, data=b"", encoding="mono8")
    message.data = np.pad(REGION * np.uint8(255), ((0, 0), (0, 4))).tobytes()
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    np.testing.assert_array_equal(in_python(rows[:, : message.width]), REGION)
    centre = SimpleNamespace(x=32.5, y=20.0)
    box = SimpleNamespace(center=SimpleNamespace(position=centre), size_x=25.0, size_y=20.0)
    x, y = box.center.position.x, box.center.position.y
    return in_python(Box(x - box.size_x / 2, y - box.size_y / 2, x + box.size_x / 2, y + box.size_y / 2))


def opencv(folder: Path) -> Found:
    contours, _ = cv2.findContours(REGION.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = cv2.drawContours(np.zeros(REGION.shape, np.uint8), contours, -1, 255, cv2.FILLED)
    return in_python(filled)


TOOLS: dict[str, Callable[[Path], Found]] = {
    "Ultralytics": ultralytics, "supervision": supervision, "SAM, SAM 2": sam, "labelme": labelme,
    "X-AnyLabeling": x_anylabeling, "CVAT": cvat, "Label Studio": label_studio, "Roboflow": roboflow,
    "COCO": coco_itself, "LVIS": lvis, "VOC": voc, "Cityscapes": cityscapes, "panoptic PNG": panoptic, "ROS": ros,
    "OpenCV": opencv,
}  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_what_the_tool_writes_is_the_region(tmp_path: Path, tool: str) -> None:
    np.testing.assert_array_equal(TOOLS[tool](tmp_path), REGION)


def test_the_table_in_the_documentation_has_these_rows() -> None:
    lines = (Path(__file__).parents[3] / "docs" / "regions.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| your tool | what it writes | what to pass |") + 2
    rows = [line.split("|")[1].strip() for line in lines[start:] if line.startswith("|")]
    assert rows[: len(TOOLS)] == list(TOOLS)


@pytest.mark.parametrize(
    ("region", "part"),
    [
        ([20, 10, 45, 30], "a region cannot be list of 4"),
        ((20, 10, 45, 30), "a region cannot be tuple of 4"),
        (None, "a region cannot be NoneType"),
        (7, "a region cannot be int"),
        (b"123", "not an image that can be read"),
        (torch.zeros(3, 40, 60), "an array of 3 masks"),
        ({"bbox": [1, 2, 3, 4]}, "an object with box"),
        (SimpleNamespace(xyxy=[[1, 2, 3, 4]]), "a region cannot be types.SimpleNamespace"),
    ],
)
def test_what_is_not_certain_is_named_by_its_type(region: Any, part: str) -> None:
    with refused("^region: ", part):
        in_python(region)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.bfloat16, torch.int64])
def test_tensors_of_any_type_are_masks(dtype: torch.dtype) -> None:
    for shape in ((HEIGHT, WIDTH), (1, HEIGHT, WIDTH), (1, 1, HEIGHT, WIDTH)):
        np.testing.assert_array_equal(in_python(torch.tensor(REGION).to(dtype).reshape(shape)), REGION)
