"""Outlines, run lengths and shapes against the libraries whose masks they must be: pycocotools and labelme."""

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.refusals import refused
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from gar_edge.runtime.regions import Polygons, find_mask, from_polygons, from_rle
from gar_edge.runtime.regions.files import read_regions

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on NumPy 2

SHAPES = 1000
WIDTH, HEIGHT = 47, 31


def outline(random: np.random.Generator) -> list[float]:
    """A random outline: three to nine corners, some beyond the picture; whole, half and odd numbers."""
    corners = random.uniform(-5, 52, (random.integers(3, 10), 2))
    step = random.choice([1.0, 0.5, 1e-3])
    return (np.round(corners / step) * step + 2).ravel().tolist()


def test_outlines_in_a_coco_file_are_what_coco_itself_makes_of_them(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    segmentations = [[outline(random) for _ in range(random.integers(1, 4))] for _ in range(SHAPES)]
    data = {
        "images": [{"id": 5, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [{"id": n, "image_id": 5, "segmentation": one} for n, one in enumerate(segmentations)],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    truth = COCO()
    truth.dataset = data
    truth.createIndex()
    found = read_regions(tmp_path / "a.json", "a.png")
    assert list(found) == list(range(SHAPES))
    for number, region in found.items():
        expected = truth.annToMask(data["annotations"][number]) > 0
        np.testing.assert_array_equal(region.draw(3, 3), expected)  # at the file's size, whatever is asked


def test_arrays_points_and_lists_of_one_outline_are_one_mask() -> None:
    random = np.random.default_rng(2)
    flat = np.round(random.uniform(0, 30, 12)).astype(np.int32)
    packed = coco_mask.frPyObjects([flat.tolist()], HEIGHT, WIDTH)
    expected = coco_mask.decode(coco_mask.merge(packed)) > 0
    points = flat.reshape(-1, 2)
    forms: list[Any] = [
        [flat.tolist()], [flat], (tuple(flat.tolist()),), [points], points, [points[:, None]],  # OpenCV's contours
        [[tuple(point) for point in points]], [points.astype(np.float32)], np.array([flat]),
    ]  # fmt: skip
    for form in forms:
        np.testing.assert_array_equal(from_polygons(form, WIDTH, HEIGHT), expected)


def test_run_lengths_are_coco_s_in_every_form_that_python_hands_over() -> None:
    random = np.random.default_rng(3)
    for _ in range(SHAPES):
        height, width = (int(side) for side in random.integers(1, 40, 2))
        mask = random.random((height, width)) < random.random()
        packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        np.testing.assert_array_equal(from_rle(packed), mask)
        columns = mask.ravel(order="F")
        starts = np.flatnonzero(np.diff(np.concatenate([[False], columns])) != 0)
        counts = np.diff(np.concatenate([[0], starts, [len(columns)]]))
        for form in (counts, counts.tolist(), tuple(counts), list(counts)):
            np.testing.assert_array_equal(from_rle({"size": mask.shape, "counts": form}), mask)
        np.testing.assert_array_equal(from_rle({"size": np.array(mask.shape), "counts": counts.tolist()}), mask)


def test_runs_that_are_too_short_are_refused_though_pycocotools_reads_past_them() -> None:
    with refused("cover 3 pixels"):
        from_rle({"size": (30, 40), "counts": b"12"})


def test_an_endless_outline_is_refused_before_memory_is_taken() -> None:
    far = [[(-1) ** n * 9e5, (-1) ** n * 9e5] for n in range(40)]
    with refused("longer than"):
        Polygons([far]).draw(10, 10)


# labelme, which `make test` installs without its Qt


@pytest.fixture
def shape_to_mask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """The function of labelme itself. The package itself needs Qt; its module of shapes needs only NumPy and Pillow."""
    package = importlib.util.find_spec("labelme")
    if package is None or not package.submodule_search_locations:
        pytest.skip("labelme is not installed: pip install --no-deps labelme==6.3.1, as the Makefile does")
    path = Path(package.submodule_search_locations[0]) / "utils" / "shape.py"
    stand_in = types.ModuleType("labelme._label_file")
    stand_in.ShapeDict = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "labelme", types.ModuleType("labelme"))
    monkeypatch.setitem(sys.modules, "labelme._label_file", stand_in)
    spec = importlib.util.spec_from_file_location("labelme_shape", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., np.ndarray] = module.shape_to_mask
    return found


def test_labelme_shapes_are_what_labelme_makes_of_them(
    tmp_path: Path, shape_to_mask: Callable[..., np.ndarray]
) -> None:
    random = np.random.default_rng(4)
    shapes = []
    for number in range(SHAPES):
        kind = ("polygon", "rectangle", "circle", "oriented_rectangle")[number % 4]
        corners = {"polygon": int(random.integers(3, 10)), "oriented_rectangle": 4}.get(kind, 2)
        points = np.round(random.uniform(2, 45, (corners, 2)), int(random.integers(0, 4))).tolist()
        shapes.append({"label": "a", "shape_type": kind, "points": points, "group_id": None})
    data = {"imagePath": "a.png", "imageWidth": WIDTH, "imageHeight": HEIGHT, "shapes": shapes}
    (tmp_path / "a.json").write_text(json.dumps(data))
    found = read_regions(tmp_path / "a.json", "a.png")
    for number, shape in enumerate(shapes):
        expected = shape_to_mask((HEIGHT, WIDTH), shape["points"], shape["shape_type"])
        np.testing.assert_array_equal(found[number].draw(3, 3), expected, err_msg=str(shape))


def test_a_group_of_labelme_is_the_union_of_its_shapes(tmp_path: Path) -> None:
    def square(x: int, group: int | None, label: str = "cup") -> dict[str, Any]:
        return {"label": label, "shape_type": "rectangle", "points": [[x, 2], [x + 2, 4]], "group_id": group}

    shapes = [square(1, 7), square(10, None), square(20, 7), square(30, 7, "lid"), square(40, None)]
    (tmp_path / "a.json").write_text(json.dumps({"shapes": shapes, "imageWidth": WIDTH, "imageHeight": HEIGHT}))
    found = read_regions(tmp_path / "a.json", "a.png")
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    columns = [np.flatnonzero(find_mask(region, picture).any(axis=0)).tolist() for region in found.values()]
    assert columns == [[1, 2, 3, 20, 21, 22], [10, 11, 12], [30, 31, 32], [40, 41, 42]]
