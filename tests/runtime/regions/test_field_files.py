"""Files of regions as they come from the field: shapes that differ, one bad entry, names, ids, fractions."""

from __future__ import annotations

import base64
import io
import json
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.refusals import refused
from PIL import Image, ImageOps

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.loading import load_image, load_picture
from gar_edge.runtime.images.shape import check_shape, same_shape
from gar_edge.runtime.regions import Box, Points, Polygons, Runs, box_mask, find_mask
from gar_edge.runtime.regions.files import read_region_of, read_regions

WIDTH, HEIGHT = 90, 60
REGION = np.zeros((HEIGHT, WIDTH), bool)
REGION[10:40, 20:50] = True
SQUARE = [20, 10, 50, 10, 50, 40, 20, 40]
PICTURE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def write(folder: Path, data: Any) -> Path:
    path = folder / "regions.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def coco(*segmentations: Any, **image: Any) -> dict[str, Any]:
    sides = {"width": WIDTH, "height": HEIGHT}
    return {
        "images": [{"id": 1, "file_name": "a.png", **sides, **image}],
        "annotations": [{"id": 11 + n, "image_id": 1, "segmentation": one} for n, one in enumerate(segmentations)],
    }


# Shapes


@pytest.mark.parametrize(
    ("mask", "picture", "same"),
    [
        ((90, 60), (90, 60), True),
        ((45, 30), (90, 60), True),
        ((1920, 1080), (640, 360), True),
        ((85, 64), (1000, 750), True),  # 64 * 4 / 3 = 85.33
        ((512, 383), (1023, 766), True),
        ((683, 1024), (2731, 4096), True),
        ((60, 90), (90, 60), False),
        ((256, 256), (239, 170), False),
        ((640, 640), (640, 630), False),
        ((640, 384), (1280, 720), False),  # letterboxed to multiples of 32
        ((28, 28), (640, 480), False),
        ((640, 482), (640, 480), False),
    ],
)
def test_shapes_are_the_same_up_to_rounding(mask: tuple[int, int], picture: tuple[int, int], same: bool) -> None:
    assert same_shape(mask, picture) is same
    assert same_shape(picture, mask) is same
    if not same:
        with pytest.raises(GarMaskError, match="of another shape; "):
            check_shape(mask, picture)


def test_a_mask_of_another_shape_is_refused_with_the_likely_reason() -> None:
    for shape, part in (
        ((90, 60), "sides are swapped"),
        ((256, 256), "padded"),
        ((64, 96 + 32), "padded"),
        ((29, 55), "only of a part"),
    ):
        with refused("region 1: mask is", "the picture 90x60", part):
            find_mask(np.ones(shape, bool), PICTURE, name="region 1")


def test_a_smaller_mask_of_the_same_shape_is_resized_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="mask is 45x30, the image 90x60: resized"):
        found = find_mask(REGION[::2, ::2], PICTURE)
    np.testing.assert_array_equal(found, REGION)


def phone(folder: Path, size: tuple[int, int], orientation: int) -> Path:
    """A photograph of this stored size that its EXIF turns."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (90, 120, 60)).save(folder / "phone.jpg", exif=exif)
    return folder / "phone.jpg"


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_stored_picture_is_told_from_one_of_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    picture = load_picture(phone(tmp_path, (HEIGHT, WIDTH), orientation))
    assert picture.pixels.shape == (HEIGHT, WIDTH, 3)
    stored: list[Any] = [
        REGION.T,
        Runs(HEIGHT, WIDTH, [600, 30, 60 * 90 - 630]),
        Box(1, 1, 20, 30, size=(HEIGHT, WIDTH)),
        Polygons([[1, 1, 30, 1, 30, 30]], (HEIGHT, WIDTH)),
    ]
    for region in stored:
        with refused("by its EXIF, its stored size is 60x90: turn the mask the same way"):
            find_mask(region, picture.pixels, box_mask, turn=picture.turn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(find_mask(REGION, picture.pixels, turn=picture.turn), REGION)


@pytest.mark.parametrize(("size", "orientation"), [((WIDTH, HEIGHT), 3), ((WIDTH, HEIGHT), 2), ((70, 70), 6)])
def test_where_a_turn_does_not_show_it_is_said(tmp_path: Path, size: tuple[int, int], orientation: int) -> None:
    picture = load_picture(phone(tmp_path, size, orientation))
    mask = np.zeros(picture.pixels.shape[:2], bool)
    mask[5:30, 5:30] = True
    with pytest.warns(UserWarning, match=r"by its EXIF, .* taken for the upright picture's"):
        find_mask(mask, picture.pixels, turn=picture.turn)


@pytest.mark.parametrize("region", [Box(5, 5, 30, 30), Points([(5, 5)]), Polygons([SQUARE])])
def test_coordinates_in_a_turned_picture_are_asked_about(tmp_path: Path, region: Any) -> None:
    picture = load_picture(phone(tmp_path, (HEIGHT, WIDTH), 6))
    with pytest.warns(UserWarning, match="taken for the upright picture's, 90x60"):
        find_mask(region, picture.pixels, lambda image, cue: REGION, turn=picture.turn)


def test_a_pillow_image_is_not_turned_behind_the_callers_back(tmp_path: Path) -> None:
    with Image.open(phone(tmp_path, (HEIGHT, WIDTH), 6)) as image:
        with pytest.warns(UserWarning, match="taken as it is, not turned by its EXIF"):
            assert load_image(image).shape == (WIDTH, HEIGHT, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_image(ImageOps.exif_transpose(image)).shape == (HEIGHT, WIDTH, 3)


# Fractions


FRACTIONS = [20 / WIDTH, 10 / HEIGHT, 50 / WIDTH, 40 / HEIGHT]


def test_one_rule_of_fractions_holds_for_boxes_points_and_outlines(tmp_path: Path) -> None:
    x1, y1, x2, y2 = FRACTIONS
    outline = [x1, y1, x2, y1, x2, y2, x1, y2]
    entries = [{"box": FRACTIONS}, {"polygons": [outline]}, {"points": [[0.25, 0.5]], "box": FRACTIONS}]
    found = read_regions(write(tmp_path, entries), "a.png")
    regions = [*found.values(), Box(*FRACTIONS), Polygons([outline]), Polygons([np.array(outline).reshape(-1, 2)])]
    regions += [Box(*np.array(FRACTIONS, np.float32)), Polygons([SQUARE]), Polygons([np.array(SQUARE)])]
    for region in regions:
        np.testing.assert_array_equal(find_mask(region, PICTURE, box_mask), REGION)
    for name, data in (
        ("coco", coco([outline])),
        ("labelme", {"shapes": [{"points": np.reshape(outline, (4, 2)).tolist()}]}),
    ):
        mask = find_mask(read_regions(write(tmp_path, data), "a.png")[0], PICTURE)
        assert (mask & REGION).sum() / (mask | REGION).sum() > 0.93, name  # labelme draws outlines, too


def test_whole_numbers_are_pixels_and_the_first_pixel_is_asked_about() -> None:
    with pytest.warns(UserWarning, match=r"is the first pixel; fractions of the sides are written 1\.0"):
        assert find_mask(Box(0, 0, 1, 1), PICTURE, box_mask).sum() == 1
    assert find_mask(Box(0.0, 0.0, 1.0, 1.0), PICTURE, box_mask).all()
    assert find_mask(Box(0.0, 0.0, 1.0, 1.0, fractions=False), PICTURE, box_mask).sum() == 1


@pytest.mark.parametrize("numbers", [[0.2, 0.2, 1.01, 0.9], [-0.01, 0.2, 0.8, 0.9]])
def test_fractions_that_barely_leave_the_picture_are_neither(numbers: list[float]) -> None:
    for make in (lambda: Box(*numbers), lambda: Polygons([[*numbers, 0.5, 0.6]])):
        with refused("just beyond 0…1"):
            make()


# One bad entry


def left(folder: Path, data: Any) -> tuple[list[Any], list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_regions(write(folder, data), "a.png")
    return list(found.values()), [str(one.message) for one in caught]


BAD: list[Any] = [
    [[50.0, 50.0]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [["x"] * 6], [[1, 2, float("nan"), 4, 5, 6]], "x", 7,
    {"size": [60, 90]}, {"size": [60, 90], "counts": "é\0"}, {"counts": [5400]}, [[1, 2, 1e300, 4, 5, 6]],
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_annotation_is_left_out_by_name_and_the_others_are_read(tmp_path: Path, bad: Any) -> None:
    for entries, place in (([bad, [SQUARE]], 0), ([[SQUARE], bad], 1)):
        regions, notes = left(tmp_path, coco(*entries))
        drawn = []
        for region in regions:  # run lengths are checked when they are drawn
            try:
                drawn.append(find_mask(region, PICTURE))
            except GarMaskError as error:
                notes.append(f"annotations[{place}]{error}")
        assert len(drawn) == 1
        np.testing.assert_array_equal(drawn[0], REGION)
        assert len(notes) == 1
        assert f"annotations[{place}]" in notes[0]


def test_boxes_without_extent_odd_entries_and_float_sizes(tmp_path: Path) -> None:
    data = coco([SQUARE], width=90.0, height=60.0)
    data["annotations"] += [
        {"id": 2, "image_id": 1, "bbox": [50.0, 50.0, 0, 0]}, {"image_id": 1, "bbox": [1, 2, 3]}, 7, None,
        {"image_id": None, "bbox": [1, 2, 3, 4]},
        {"id": 3, "image_id": 1, "segmentation": [[]], "bbox": [20, 10, 30, 30]},
    ]  # fmt: skip
    data["images"].append({"file_name": "no id.png"})
    regions, notes = left(tmp_path, data)
    assert len(regions) == 2
    for region in regions:
        np.testing.assert_array_equal(find_mask(region, PICTURE, box_mask), REGION)
    assert [part in note for part, note in zip(("annotations[1].bbox", "annotations[2].bbox"), notes, strict=True)] == [
        True
    ] * 2


def test_a_spoilt_part_of_a_region_leaves_the_rest_of_it(tmp_path: Path) -> None:
    regions, notes = left(tmp_path, coco([[1, 1, 2, 2], SQUARE]))
    np.testing.assert_array_equal(find_mask(regions[0], PICTURE), REGION)
    assert "annotations[0].segmentation[0]: an outline of 4 numbers" in notes[0]


def png(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_labelme_reads_what_marks_an_area_and_names_the_rest(tmp_path: Path) -> None:
    kinds = ["point", "line", "linestrip", "points", "ai_polygon", None]
    shapes: list[Any] = [{"label": "a", "shape_type": kind, "points": [[1, 1]]} for kind in kinds]
    shapes += [
        {"shape_type": "mask", "points": [[20.0, 10.0], [49.0, 39.0]], "mask": png(np.ones((30, 30)))},
        {"shape_type": "mask", "points": [[20, 10], [49, 39]], "mask": "no picture!"},
        {"shape_type": "mask", "points": [[20, 10], [49, 39]]},
        {"shape_type": "rectangle", "points": [[20, 10], [49, 10], [49, 39], [20, 39]]},
        {"shape_type": "rectangle", "points": [[20, 10]]},
        {"shape_type": "polygon", "points": [[1, 2], ["x", 3], [4, 5]]},
        "x",
    ]
    regions, notes = left(tmp_path, {"shapes": shapes, "imageWidth": 90.0, "imageHeight": 60.0, "imagePath": "a.png"})
    assert len(regions) == 2
    for region in regions:
        np.testing.assert_array_equal(find_mask(region, PICTURE), REGION)
    assert len(notes) == 11
    for place in (0, 1, 2, 3, 4, 5, 7, 8, 10, 11, 12):
        assert any(f"shapes[{place}]" in note for note in notes), place


def test_where_nothing_is_left_the_first_reason_is_the_error(tmp_path: Path) -> None:
    with refused("regions.json: annotations\\[0\\].segmentation: a polygon of 2 numbers"):
        read_regions(write(tmp_path, coco([[1, 2]], [[3, 4]])), "a.png")
    with refused('shapes\\[0\\].shape_type is "line"'):
        read_regions(write(tmp_path, {"shapes": [{"shape_type": "line", "points": [[1, 1], [2, 2]]}]}), "a.png")


def test_a_list_of_our_own_keeps_the_numbers_of_what_is_left(tmp_path: Path) -> None:
    path = write(tmp_path, [{"box": [5, 5, 1, 1]}, {"box": [1, 1, 5, 5]}, {"circle": 3}])
    with pytest.warns(UserWarning, match="left out") as caught:
        assert read_regions(path, "a.png") == {1: Box(1, 1, 5, 5)}
    assert [str(one.message).split(": ")[1].split(" ")[0] for one in caught] == ["[0].box", "[2]"]


# Names


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        ({"file_name": "images\\train\\a.png"}, "a.png"),
        ({"file_name": "C:\\data\\a.png"}, "/elsewhere/a.png"),
        ({"file_name": "train/a.png"}, "a.png"),
        ({"file_name": None, "coco_url": "http://images.cocodataset.org/train2017/a.png"}, "a.png"),
        ({"file_name": "https://host/a.png?X-Amz-Signature=1"}, "a.png"),
        ({"file_name": "https://host/my%20cup.png"}, "my cup.png"),
        ({"file_name": "x.jpg", "extra": {"name": "a.png"}}, "a.png"),
        ({"file_name": unicodedata.normalize("NFD", "größe.png")}, unicodedata.normalize("NFC", "größe.png")),
        ({"file_name": unicodedata.normalize("NFC", "größe.png")}, unicodedata.normalize("NFD", "größe.png")),
        ({"file_name": "IMG_1.JPG"}, "img_1.jpg"),
        ({"file_name": "/data/local-files/?d=set/a.png"}, "a.png"),
    ],
)
def test_an_entry_is_found_by_any_of_its_names(tmp_path: Path, names: dict[str, Any], asked: str) -> None:
    data = coco([SQUARE], **names)
    data["images"].insert(0, {"id": 9, "file_name": "other.png"})
    data["annotations"].append({"image_id": 9, "bbox": [1, 1, 2, 2]})
    assert len(read_regions(write(tmp_path, data), asked)) == 1
    data["images"] = data["images"][:1]
    with refused("has 0 entries about .*; it has other.png"):
        read_regions(write(tmp_path, data), asked)


def test_of_one_name_in_many_folders_the_pictures_own_is_taken(tmp_path: Path) -> None:
    data = coco([SQUARE], file_name="left/0001.png")
    data["images"].append({"id": 2, "file_name": "right/0001.png"})
    data["annotations"] += [{"image_id": 2, "bbox": [1, 1, 2, 2]}] * 2
    path = write(tmp_path, data)
    assert len(read_regions(path, "/robot/left/0001.png")) == 1
    assert len(read_regions(path, "right/0001.png")) == 2
    with refused("has 2 entries about 0001.png; one is needed"):
        read_regions(path, "0001.png")


@pytest.mark.parametrize(
    "data",
    [
        coco([SQUARE], file_name="other.png"),
        {"imagePath": "other.png", "shapes": [{"points": [[1, 1], [9, 1], [9, 9]]}]},
        [{"image": "other.png", "regions": [{"box": [1, 1, 5, 5]}]}],
        {"image": "other.png", "regions": [{"box": [1, 1, 5, 5]}]},
        [{"data": {"image": "/data/upload/1/0a1b2c3d-other.png"}, "annotations": []}],
    ],
)
def test_a_lone_entry_about_another_picture_is_not_this_one(tmp_path: Path, data: Any) -> None:
    with refused("has 0 entries about a.png; it has .*other.png"):
        read_regions(write(tmp_path, data), "a.png")


# Choosing


def test_one_of_many_is_chosen_by_id_or_by_number(tmp_path: Path) -> None:
    data = coco(*[[[n, 0, n + 5, 0, n + 5, 5]] for n in range(7)])
    for annotation in data["annotations"]:
        annotation["id"] -= 8  # 3 to 9
    path = write(tmp_path, data)
    everything = read_regions(path, "a.png")
    assert read_region_of(path, "a.png", 9) == everything[6]
    assert read_region_of(path, "a.png", 0) == everything[0]  # no such id
    with pytest.warns(UserWarning, match="the region of id 4 is taken, not the one in place 4"):
        assert read_region_of(path, "a.png", 4) == everything[1]
    with refused("has no region 70 in a.png; it has 3, 4, 5"):
        read_region_of(path, "a.png", 70)
    shapes = [{"points": [[n, 0], [n + 5, 0], [n + 5, 5]]} for n in range(3)]
    path = write(tmp_path, {"shapes": shapes})
    assert read_region_of(path, "a.png", 2) == read_regions(path, "a.png")[2]
