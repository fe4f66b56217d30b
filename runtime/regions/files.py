"""Regions in JSON files: this project's own, COCO annotations, labelme, Label Studio.

A region is one object:

| object | region |
|---|---|
| `{"box": [x1, y1, x2, y2]}`, with `"as_mask": true` too | a box; all that is inside it |
| `{"points": [[x, y], …]}`, with `"not_points"` or `"box"` too | points inside; points outside, the box around them |
| `{"size": [height, width], "counts": …}` | COCO's run-length encoding |
| `{"polygons": [[x1, y1, x2, y2, …], …]}` | outlines |
| `{"mask": "file.png"}`, with `"label": 3` too | a mask image; one instance of a label image |
| `{"scribble": "file.png"}` | a scribble |
| `{"segmentation": …}`, with `"bbox"` and the picture's `"size"` too | an annotation of COCO's |
| `{"shapes": […]}`, with `"imageWidth"` and `"imageHeight"` too | shapes of labelme's that are one region |

Files are named relative to the JSON file; coordinates are those of `coordinates`. Several regions: a list, numbered
from 0, or an object of number to region, or an object with one of these under `regions` or a list of run-length
encodings under `mask_rles`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.files.addresses import beside
from gar_edge.runtime.files.fields import Field, Text, read_json
from gar_edge.runtime.regions.coco import Coco, from_sa1b, is_coco, read_annotation
from gar_edge.runtime.regions.coordinates import read_points
from gar_edge.runtime.regions.cues import Box, BoxMask, Points, Scribble
from gar_edge.runtime.regions.label_studio import is_label_studio, read_label_studio
from gar_edge.runtime.regions.labelme import is_labelme, read_labelme, read_shapes
from gar_edge.runtime.regions.labels import MaskFile
from gar_edge.runtime.regions.names import entry_about
from gar_edge.runtime.regions.polygons import read_polygons
from gar_edge.runtime.regions.reading import Reading, naming
from gar_edge.runtime.regions.rle import read_runs

if TYPE_CHECKING:
    from gar_edge.runtime.regions.kinds import RegionLike

_NUMBER = re.compile(r"[0-9]{1,9}")  # ASCII: isdecimal would take digits of any script, and any length
Files = Callable[[Field], str | Path | bytes]  # what a field that names a file means
_KINDS = "box, points, counts, polygons, mask, scribble, segmentation or shapes"


def read_regions(path: Path, image: str) -> dict[int, RegionLike]:
    """The regions by number that a file marks in the picture of this path; `GarMaskError` where it marks none.

    Of a file about several pictures those of the one with this name are taken. Entries that cannot be read are left out
    with a warning each, as long as others are left.
    """
    found, _ = _read(path, image)
    return found


def read_region_of(path: Path, image: str, chosen: int) -> RegionLike:
    """One region of a file: the one with this id, or else with this number; `GarMaskError` where there is none."""
    found, ids = _read(path, image)
    by_id = [number for number, key in ids.items() if key in (chosen, str(chosen))]
    if len(by_id) > 1:
        raise GarMaskError(f"{path}: has {len(by_id)} regions of id {chosen}")
    if by_id:
        if chosen in found and by_id[0] != chosen:
            warnings.warn(
                f"{path}#{chosen}: the region of id {chosen} is taken, not the one in place {chosen}", stacklevel=3
            )
        return found[by_id[0]]
    if chosen not in found:
        known = ", ".join(str(key) for key in ids.values()) or ", ".join(map(str, found))
        raise GarMaskError(f"{path}: has no region {chosen} in {image}; it has {known}")
    return found[chosen]


def in_folder(folder: Path) -> Files:
    """Files that are named relative to a folder."""
    return lambda name: beside(folder, name.to(Text))


def entry_regions(entry: Field, files: Files) -> dict[int, RegionLike]:
    """The regions of one picture in this project's form, by number; the first that cannot be read raises."""
    found = {}
    for number, read in _own(entry, files):
        found[number] = read()
    return found


def read_region(field: Field, files: Files) -> RegionLike:
    """The region that one object means; `GarMaskError` names what is wrong in it."""
    keys = set(field.value) if isinstance(field.value, dict) else set()
    with naming(field):
        if "counts" in keys:
            return read_runs(field)
        if "polygons" in keys:
            return read_polygons(field["polygons"], None)
        if "mask" in keys:
            label = field["label"].to(int | None)
            return MaskFile(files(field["mask"]), label)
        if "scribble" in keys:
            return Scribble(files(field["scribble"]))
        if "shapes" in keys:
            return read_shapes(field)
        if "segmentation" in keys:
            return read_annotation(field)
        box = _box(field["box"]) if "box" in keys else None
        if "points" in keys or "not_points" in keys:
            inside, outside = (
                () if field[key].value is None else read_points(field[key]) for key in ("points", "not_points")
            )
            return Points(inside, outside, box)
    if box is None:
        raise field.wrong(f"an object with {_KINDS}")
    return BoxMask(box) if field["as_mask"].to(bool | None) else box


def _read(path: Path, image: str) -> tuple[dict[int, RegionLike], dict[int, int | str]]:
    """Regions by number, and the ids that the file gives them."""
    root = from_sa1b(read_json(path))
    if is_coco(root):
        coco = Coco(root)
        reading = coco.regions(coco.about(image), boxes=True)
    elif is_labelme(root):
        reading = read_labelme(root, image)
    elif is_label_studio(root):
        reading = read_label_studio(root, image)
    else:
        return _read_own(root, path, image), {}
    if not reading.regions and reading.skipped:
        raise GarMaskError(reading.skipped[0])
    reading.warn()
    if not reading.regions:
        raise GarMaskError(f"{path}: marks no region in {image}")
    ids = {number: key for number, key in enumerate(reading.ids) if key is not None}
    return dict(enumerate(reading.regions)), ids


def _read_own(root: Field, path: Path, image: str) -> dict[int, RegionLike]:
    entries = list(root.items()) if isinstance(root.value, list) else [root]
    if any(isinstance(entry.value, dict) and "image" in entry.value for entry in entries):
        named = [
            [entry.value["image"]] if isinstance(entry.value, dict) and "image" in entry.value else []
            for entry in entries
        ]
        names = [[name for name in own if isinstance(name, str)] for own in named]
        root = entries[entry_about(names, image, root.source)]
    found: dict[int, RegionLike] = {}
    reading = Reading()
    for number, read in _own(root, in_folder(path.parent)):
        with reading.skipping():
            found[number] = read()
    if not found:
        raise GarMaskError(reading.skipped[0] if reading.skipped else f"{path}: marks no region in {image}")
    for why in reading.skipped:
        warnings.warn(f"{why}: left out", stacklevel=4)
    return found


def _own(entry: Field, files: Files) -> Iterator[tuple[int, Callable[[], RegionLike]]]:
    """The numbers of an entry's regions, and what reads each."""
    value = entry.value
    if isinstance(value, dict) and "mask_rles" in value:
        for number, one in enumerate(entry["mask_rles"].items()):
            yield number, partial(read_runs, one)
        return
    regions = entry["regions"] if isinstance(value, dict) and "regions" in value else entry
    if isinstance(regions.value, list):
        for number, one in enumerate(regions.items()):
            yield number, partial(read_region, one, files)
    elif isinstance(regions.value, dict) and regions.value and all(_NUMBER.fullmatch(name) for name in regions.value):
        for name in regions.value:
            yield int(name), partial(read_region, regions[name], files)
    else:
        yield 0, partial(read_region, regions, files)


def _box(field: Field) -> Box:
    field.to(list[int | float])
    if len(field.value) != 4:
        raise field.wrong("[left, upper, right, lower]")
    with naming(field):
        return Box(*field.value)
