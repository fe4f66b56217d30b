"""Regions in JSON files: this project's own, COCO annotations, labelme.

A region is one object:

| object | region |
|---|---|
| `{"box": [x1, y1, x2, y2]}` | a box |
| `{"points": [[x, y], …]}`, with `"not_points"` or `"box"` too | points inside; points outside, the box around them |
| `{"size": [height, width], "counts": …}` | COCO's run-length encoding |
| `{"polygons": [[x1, y1, x2, y2, …], …]}` | outlines, pixels |
| `{"mask": "file.png"}`, with `"label": 3` too | a mask image; one instance of a label image |
| `{"scribble": "file.png"}` | a scribble |

Files are named relative to the JSON file. Coordinates of boxes and points are pixels, or fractions where all lie within
0…1 and one is written with a decimal point. Several regions: a list, numbered from 0, or an object of number to region,
or an object with one of these under `regions` or a list of run-length encodings under `mask_rles`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.files.fields import Field, read_json
from gar_edge.runtime.regions.cues import FURTHEST, Box, Points, Scribble
from gar_edge.runtime.regions.labels import MaskFile
from gar_edge.runtime.regions.polygons import Circle, Polygons, read_polygons
from gar_edge.runtime.regions.rle import Runs, read_runs

if TYPE_CHECKING:
    from gar_edge.runtime.regions.find import RegionLike

_KINDS = "box, points, counts, polygons, mask or scribble"


def read_regions(path: Path, image: str) -> dict[int, RegionLike]:
    """The regions by number that a file marks in the picture of this name; `GarMaskError` where it marks none.

    Of a file about several pictures those of the one with this name are taken.
    """
    root = read_json(path)
    if isinstance(root.value, list) and any(isinstance(entry, dict) and "image" in entry for entry in root.value):
        root = _about(root, "image", image)
    if isinstance(root.value, dict) and {"images", "annotations"} <= set(root.value):
        found = dict(enumerate(_coco(root, image)))
    elif isinstance(root.value, dict) and "shapes" in root.value:
        found = dict(enumerate(_labelme(root)))
    else:
        found = entry_regions(root, path.parent)
    if not found:
        raise GarMaskError(f"{path}: marks no region in {image}")
    return found


def entry_regions(entry: Field, folder: Path) -> dict[int, RegionLike]:
    """The regions of one picture in this project's form, by number."""
    value = entry.value
    if isinstance(value, dict) and "mask_rles" in value:
        return dict(enumerate(read_runs(one) for one in entry["mask_rles"].items()))
    regions = entry["regions"] if isinstance(value, dict) and "regions" in value else entry
    if isinstance(regions.value, list):
        return {number: read_region(one, folder) for number, one in enumerate(regions.items())}
    if isinstance(regions.value, dict) and regions.value and all(name.isdecimal() for name in regions.value):
        return {int(name): read_region(regions[name], folder) for name in regions.value}
    return {0: read_region(regions, folder)}


def read_region(field: Field, folder: Path) -> RegionLike:
    """The region that one object means; `GarMaskError` names what is wrong in it."""
    keys = set(field.value) if isinstance(field.value, dict) else set()
    if "counts" in keys:
        return read_runs(field)
    if "polygons" in keys:
        return read_polygons(field["polygons"], None)
    if "mask" in keys:
        label = field["label"]
        return MaskFile(folder / field["mask"].text(), None if label.value is None else label.whole())
    if "scribble" in keys:
        return Scribble(folder / field["scribble"].text())
    box = _box(field["box"]) if "box" in keys else None
    if "points" in keys or "not_points" in keys:
        inside, outside = (_points(field[key]) for key in ("points", "not_points"))
        with _naming(field):
            return Points(inside, outside, box, fractions_meant(itertools.chain(*inside, *outside)))
    if box is None:
        raise field.wrong(f"an object with {_KINDS}")
    return box


def fractions_meant(numbers: Iterable[float]) -> bool:
    """Whether coordinates are fractions: all within 0…1, and one of them written with a decimal point."""
    listed = list(numbers)
    return all(0 <= number <= 1 for number in listed) and any(isinstance(number, float) for number in listed)


def _coco(root: Field, image: str) -> list[RegionLike]:
    """Segmentations of one picture's annotations; boxes of those without."""
    entry = _about(root["images"], "file_name", image)
    key, sides = entry["id"], (entry["width"], entry["height"])
    size = None if None in (side.value for side in sides) else (sides[0].whole(1), sides[1].whole(1))
    own = [one for one in root["annotations"].items() if one["image_id"].value == key.value]
    return [_annotation(one, size) for one in own if one["segmentation"].value or one["bbox"].value]


def _annotation(field: Field, size: tuple[int, int] | None) -> RegionLike:
    if field["segmentation"].value:
        return read_segmentation(field["segmentation"], size)
    numbers = field["bbox"].numbers("a number", int, float)
    if len(numbers) != 4:
        raise field["bbox"].wrong("[left, upper, width, height]")
    left, upper, width, height = numbers
    with _naming(field["bbox"]):
        return Box(left, upper, left + width, upper + height)


def read_segmentation(field: Field, size: tuple[int, int] | None) -> Runs | Polygons:
    """A COCO segmentation, run lengths or outlines, in a picture of `size`."""
    return read_runs(field) if isinstance(field.value, dict) else read_polygons(field, size)


def _labelme(root: Field) -> list[RegionLike]:
    sides = root["imageWidth"], root["imageHeight"]
    size = None if None in (side.value for side in sides) else (sides[0].whole(1), sides[1].whole(1))
    return [_shape(shape, size) for shape in root["shapes"].items()]


def _shape(shape: Field, size: tuple[int, int] | None) -> RegionLike:
    kind, points = shape["shape_type"].value or "polygon", _points(shape["points"])
    if kind == "polygon":
        return Polygons([list(itertools.chain(*points))], size)
    if kind in ("rectangle", "circle") and len(points) != 2:
        raise shape["points"].wrong("two points")
    if kind == "circle":
        return Circle(points[0], points[1], size)
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points
        return Polygons([[x1, y1, x2, y1, x2, y2, x1, y2]], size)
    raise shape["shape_type"].wrong("polygon, rectangle or circle")


def _about(entries: Field, key: str, image: str) -> Field:
    """The entry about the picture of this name; the only entry, whatever its name."""
    listed = list(entries.items())
    if len(listed) == 1:
        return listed[0]
    found = [entry for entry in listed if Path(entry[key].text()).name == Path(image).name]
    if len(found) != 1:
        raise GarMaskError(f"{entries.source}: has {len(found)} entries about {Path(image).name}; one is needed")
    return found[0]


def _box(field: Field) -> Box:
    numbers = field.numbers("a number", int, float)
    if len(numbers) != 4:
        raise field.wrong("[left, upper, right, lower]")
    left, upper, right, lower = numbers
    with _naming(field):
        return Box(left, upper, right, lower, fractions_meant(numbers))


def _points(field: Field) -> tuple[tuple[float, float], ...]:
    points = []
    for item in () if field.value is None else field.items():
        point = item.numbers("a number", int, float)
        if len(point) != 2 or not all(abs(at) < FURTHEST for at in point):
            raise item.wrong("[x, y]")
        points.append((point[0], point[1]))
    return tuple(points)


@contextmanager
def _naming(field: Field) -> Iterator[None]:
    """Errors of what is made inside say where it stands."""
    try:
        yield
    except GarMaskError as error:
        raise GarMaskError(f"{field.source}: {field.where or 'the region'}: {error}") from None
