"""Calibration samples: run lengths worked by hand, every kind of folder, and bad input named in one line."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gar_edge.calibration import samples
from gar_edge.calibration.samples import Sample, SampleSet, drawn_scenes, folder, photographs
from gar_edge.runtime.errors import GarCalibrationError, GarExportError, GarMaskError
from gar_edge.runtime.regions.polygons import fill_polygon
from gar_edge.runtime.regions.rle import decode_counts, decode_runs

PROMPTS = 5
REGION = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 0, 1]], bool)  # [2,5]
COUNTS = [2, 3, 4, 1]  # its runs down the columns: 00 | 11 1|0 00 0|1
TEXT = "234N"  # the fourth is written as 1 - 3 = -2: 0b11110 = 30, and chr(48 + 30) is "N"


def one_line(error: pytest.ExceptionInfo[GarCalibrationError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


def slow_counts(mask: np.ndarray) -> list[int]:
    """COCO's runs, pixel by pixel."""
    height, width = mask.shape
    counts, current = [0], False
    for x in range(width):
        for y in range(height):
            if bool(mask[y, x]) != current:
                counts.append(0)
                current = not current
            counts[-1] += 1
    return counts


def slow_text(counts: list[int]) -> str:
    """As pycocotools writes them (rleToString in maskApi.c)."""
    characters = []
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = x != -1 if c & 0x10 else x != 0
            characters.append(chr((c | 0x20 if more else c) + 48))
    return "".join(characters)


def rle(mask: np.ndarray, compressed: bool = True) -> dict[str, Any]:
    counts = slow_counts(mask)
    return {"size": list(mask.shape), "counts": slow_text(counts) if compressed else counts}


def square(left: int, upper: int, side: int = 6, width: int = 40, height: int = 30) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[upper : upper + side, left : left + side] = True
    return mask


def paint(path: Path, shade: int = 90, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (shade, 50, 50)).save(path)


def save_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def write(path: Path, data: Any) -> None:
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def check(sample: Sample, prompts: int = PROMPTS) -> None:
    """What a prompt and the runtime ask of a sample."""
    assert sample.image.dtype == np.uint8
    assert sample.image.ndim == 3
    assert 1 <= len(sample.masks) <= prompts
    assert all(0 <= number < prompts for number in sample.masks)
    for mask in sample.masks.values():
        assert mask.dtype == np.bool_
        assert mask.shape == sample.image.shape[:2]
        assert mask.any()
    if sample.question is None:
        assert len(sample.masks) == 1
    else:
        assert set(re.findall(r"<Prompt\d+>", sample.question)) == {f"<Prompt{number}>" for number in sample.masks}
        assert "{" not in sample.question


def same(first: SampleSet, second: SampleSet) -> bool:
    return all(
        a is not None
        and b is not None
        and (a.name, a.question, list(a.masks)) == (b.name, b.question, list(b.masks))
        and np.array_equal(a.image, b.image)
        and all(np.array_equal(a.masks[number], b.masks[number]) for number in a.masks)
        for a, b in itertools.zip_longest(first, second)
    )


# Run lengths


def test_runs_go_down_the_columns() -> None:
    np.testing.assert_array_equal(decode_runs(COUNTS, 5, 2), REGION)


def test_a_first_run_of_zero_begins_with_the_region() -> None:
    assert decode_runs([0, 1, 3], 2, 2).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", []),
        ("0", [0]),
        ("?", [15]),
        ("`0", [16]),  # 0b10000 would be read as negative: 16 | 32 = 48, then a group of zero
        ("T3", [100]),  # 0b11_00100: 4 | 32 = 36, then 3
        ("PPo0", [31 << 10]),  # 0, 0, 31 (with 32: "o"), 0
        (TEXT, COUNTS),
        ("1234", [1, 2, 3, 6]),  # from the fourth on, the difference: 4 + 2
    ],
)
def test_text_counts_worked_by_hand(text: str, counts: list[int]) -> None:
    assert decode_counts(text) == counts


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("compressed", [True, False], ids=["text", "list"])
def test_masks_come_back_from_an_independent_encoder(seed: int, compressed: bool) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(1, 40, 2))
    mask = np.kron(random.random((height, width)) < 0.4, np.ones((1 + seed * 6, 1 + seed))) > 0
    coded = rle(mask, compressed)["counts"]
    counts = decode_counts(coded) if compressed else coded
    np.testing.assert_array_equal(decode_runs(counts, mask.shape[1], mask.shape[0]), mask)


@pytest.mark.parametrize(
    ("text", "why"), [("12 3", "not COCO"), ("1é", "not COCO"), ("12P", "middle of a run"), ("o" * 40, "not COCO")]
)
def test_text_that_is_no_counts_is_refused(text: str, why: str) -> None:
    with pytest.raises(GarMaskError, match=why):
        decode_counts(text)


@pytest.mark.parametrize(
    ("counts", "size", "why"),
    [
        ([2, 3], (5, 2), "cover 5 pixels"),
        ([12, -2], (5, 2), "negative"),
        ([10**12], (10**6, 10**6), "is over"),
        ([], (1, 1), "cover 0 pixels"),
    ],
)
def test_runs_that_do_not_fill_the_size_are_refused(counts: list[int], size: tuple[int, int], why: str) -> None:
    with pytest.raises(GarMaskError, match=why):
        decode_runs(counts, *size)


# Polygons


def test_a_polygon_takes_the_pixels_whose_centres_it_goes_round() -> None:
    found = fill_polygon(np.array([[1, 1], [4, 1], [4, 3], [1, 3]]), 6, 4)  # from the edge of pixel 1 to that of 4
    assert np.argwhere(found).tolist() == [[1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]


def test_a_triangle_by_hand() -> None:
    # The hypotenuse x + y = 4 leaves the centres (x + ½) + (y + ½) < 4 within.
    found = fill_polygon(np.array([[0, 0], [4, 0], [0, 4]]), 4, 4)
    assert found.astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_a_polygon_beyond_the_picture_is_cut() -> None:
    assert (
        fill_polygon(np.array([[-5, -5], [2, -5], [2, 50], [-5, 50]]), 4, 3).tolist()
        == [[True, True, False, False]] * 3
    )


@pytest.mark.parametrize("seed", range(5))
def test_polygons_agree_with_scikit_images_point_test(seed: int) -> None:
    from skimage.measure import grid_points_in_poly

    points = np.random.default_rng(seed).uniform(-3, 23, (7, 2))
    expected = grid_points_in_poly((20, 20), points[:, ::-1] - 0.5)  # its pixels count from their centres, (y, x)
    np.testing.assert_array_equal(fill_polygon(points, 20, 20), expected)


# The default set


@pytest.fixture(scope="module")
def photos() -> list[Sample]:
    return list(photographs(None, PROMPTS))


def test_there_are_many_photographs_and_all_can_be_used(photos: list[Sample]) -> None:
    assert len({sample.name for sample in photos}) == len(photos) >= 32
    for sample in photos:
        check(sample)


def test_no_photograph_is_another(photos: list[Sample]) -> None:
    assert len({(sample.image.shape, sample.image.tobytes()) for sample in photos}) == len(photos)


def test_regions_are_connected_apart_and_of_a_fit_size(photos: list[Sample]) -> None:
    from skimage.measure import label

    for sample in photos:
        masks = list(sample.masks.values())
        assert sum(masks).max() == 1, sample.name
        for mask in masks:
            assert label(mask, connectivity=2).max() == 1, sample.name
            assert 0.005 < mask.mean() < 0.45, sample.name


def test_the_first_samples_are_different_photographs_in_every_format() -> None:
    chosen = photographs(4, PROMPTS)
    found = list(chosen)
    assert [sample.name for sample in found] == ["astronaut", "coffee", "rocket", "coins"]
    assert [(len(sample.masks), sample.question is None) for sample in found] == [
        (1, True),
        (2, False),
        (1, False),
        (3, False),
    ]
    assert list(found[0].masks) == [1]  # described as the released demo does
    assert chosen.builtin
    assert chosen.skipped == []
    assert chosen.description.startswith("4 photographs that come with scikit-image")


def test_photographs_are_in_colour_in_grey_and_of_several_shapes(photos: list[Sample]) -> None:
    assert any((sample.image[..., 0] != sample.image[..., 2]).any() for sample in photos)
    ratios = [sample.image.shape[1] / sample.image.shape[0] for sample in photos]
    assert min(ratios) < 0.5
    assert max(ratios) > 2


def test_photographs_use_all_prompt_numbers(photos: list[Sample]) -> None:
    assert {number for sample in photos for number in sample.masks} == set(range(PROMPTS))


def test_photographs_are_the_same_again_and_others_from_another_seed() -> None:
    chosen = photographs(5, PROMPTS)
    assert same(chosen, chosen)
    assert same(chosen, photographs(5, PROMPTS, seed=0))
    assert not same(chosen, photographs(5, PROMPTS, seed=1))


@pytest.mark.parametrize("prompts", [1, 2])
def test_a_model_of_few_prompts_gets_no_more_regions(prompts: int) -> None:
    for sample in photographs(6, prompts):
        check(sample, prompts)


def test_a_photograph_that_is_gone_is_skipped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "PHOTOGRAPHS", ("gone.png", "coins.png"))
    chosen = photographs(2, PROMPTS)
    for _ in range(2):
        assert [sample.name for sample in chosen] == ["coins", "coins (upper part)"]
    assert [note.split(":")[0] for note in chosen.skipped] == ["gone", "gone (upper part)"]


def test_without_scikit_image_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(GarCalibrationError) as error:
        photographs(4, PROMPTS)
    one_line(error, "scikit-image", "pip install")


@pytest.mark.parametrize("count", [0, -3])
def test_no_samples_cannot_be_asked_for(count: int) -> None:
    with pytest.raises(GarCalibrationError) as error:
        photographs(count, PROMPTS)
    one_line(error, str(count))


# Drawn scenes


def test_drawn_scenes_ask_several_things_about_each_scene() -> None:
    chosen = drawn_scenes(40, seed=77)
    found = list(chosen)
    assert len(found) == 40
    assert chosen.builtin
    for sample in found:
        check(sample)
    formats = Counter((len(sample.masks), sample.question is None) for sample in found)
    assert set(formats) == {(1, True), (1, False), (2, False), (3, False)}
    assert min(formats.values()) >= 5
    assert len({sample.name for sample in found}) < 20
    assert len({(sample.name, sample.question) for sample in found}) == 40


def test_drawn_scenes_follow_their_seed() -> None:
    assert same(drawn_scenes(6, seed=5), drawn_scenes(6, seed=5))
    assert not same(drawn_scenes(6, seed=5), drawn_scenes(6, seed=6))


# regions.json


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


# COCO


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
