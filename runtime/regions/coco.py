"""COCO annotations, and what is derived from them: LVIS, SA-1B, Roboflow, CVAT."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from gar_edge.runtime.files.fields import Field, Side
from gar_edge.runtime.regions.cues import Box
from gar_edge.runtime.regions.names import entry_about
from gar_edge.runtime.regions.polygons import Polygons, read_polygons
from gar_edge.runtime.regions.reading import Reading, naming
from gar_edge.runtime.regions.rle import Runs, read_runs

Key = int | str
_CORNERS = 6  # numbers of the shortest outline


class CocoImage(msgspec.Struct):
    """An entry of `images`. Only LVIS has no `file_name`; Roboflow keeps the name before its own under `extra`."""

    id: Key
    file_name: str | None = None
    coco_url: str | None = None
    path: str | None = None
    extra: Any = None
    width: Side | None = None
    height: Side | None = None

    @property
    def names(self) -> list[str]:
        """All names that the picture goes by, its own first."""
        original = self.extra.get("name") if isinstance(self.extra, dict) else None
        return [name for name in (self.file_name, self.path, self.coco_url, original) if isinstance(name, str) and name]

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) in pixels, where they are given."""
        return None if self.width is None or self.height is None else (int(self.width), int(self.height))


class Coco:
    """A COCO file's pictures and annotations.

    images: with their places in the file. skipped: why others are left out. ownerless: annotations of no picture. The
    file's kind of `GarError` where there is not one picture that can be read, or no list of them.
    """

    def __init__(self, root: Field) -> None:
        self._root = root
        self.images: list[tuple[CocoImage, Field]] = []
        reading = Reading()
        for image in root["images"].items():
            with reading.skipping():
                self.images.append((image.to(CocoImage), image))
        self.skipped = reading.skipped
        if not self.images and self.skipped:
            raise root.error(self.skipped[0])
        self._own: dict[Key, list[Field]] = defaultdict(list)
        self.ownerless: list[Field] = []
        for annotation in root["annotations"].items():
            owner = annotation.value.get("image_id") if isinstance(annotation.value, dict) else None
            if isinstance(owner, (int, str)) and not isinstance(owner, bool):
                self._own[owner].append(annotation)
            else:
                self.ownerless.append(annotation)

    def about(self, image: str) -> CocoImage:
        """The entry about the picture of this path."""
        return self.images[entry_about([one.names for one, _ in self.images], image, self._root.source)][0]

    def strangers(self) -> list[Field]:
        """Annotations of pictures that the file does not list."""
        known = {image.id for image, _ in self.images}
        return [annotation for owner, own in self._own.items() if owner not in known for annotation in own]

    def regions(self, image: CocoImage, boxes: bool) -> Reading:
        """What its annotations mark: outlines and run lengths; with `boxes`, the boxes of those that have neither."""
        reading = Reading()
        for annotation in self._own.get(image.id, ()):
            with reading.skipping():
                region = _region(annotation, image.size, boxes, reading)
                if region is not None:
                    reading.add(region, _key(annotation))
        return reading


def read_segmentation(field: Field, size: tuple[int, int] | None, skipped: list[str] | None = None) -> Runs | Polygons:
    """A COCO segmentation, run lengths or outlines, in a picture of `size`; outlines of a point or two are left out."""
    if isinstance(field.value, dict):
        return read_runs(field)
    with naming(field):
        outlines = list(field.items())
        short = [one for one in outlines if isinstance(one.value, list) and len(one.value) < _CORNERS]
        if skipped is None or not short or len(short) == len(outlines):
            return read_polygons(field, size)
        skipped.extend(f"{one.source}: {one.where}: an outline of {len(one.value)} numbers" for one in short)
        kept = [one for one in outlines if one not in short]
        return Polygons([outline for one in kept for outline in read_polygons(_alone(one), size).outlines], size)


def read_annotation(field: Field) -> Runs | Polygons | Box:
    """The region that one annotation marks, alone with its picture's size [height, width] under `size`.

    Whatever is wrong with it raises; so does one that marks nothing.
    """
    size = None if field["size"].value is None else field["size"].to(tuple[Side, Side], "[height, width]")
    reading = Reading()
    region = _region(field, None if size is None else (int(size[1]), int(size[0])), True, reading)
    if reading.skipped:
        raise field.error(reading.skipped[0])
    if region is None:
        raise field["segmentation"].wrong("run lengths or outlines, or there must be a bbox")
    return region


def _alone(outline: Field) -> Field:
    return Field(outline.source, [outline.value], outline.where, outline.error)


def _region(
    annotation: Field, size: tuple[int, int] | None, boxes: bool, reading: Reading
) -> Runs | Polygons | Box | None:
    if annotation["segmentation"].value not in (None, [], [[]], {}, ""):
        return read_segmentation(annotation["segmentation"], size, reading.skipped)
    bbox = annotation["bbox"]
    if not boxes or not bbox.value:
        return None
    left, upper, width, height = _numbers(bbox)
    with naming(bbox):
        return Box(left, upper, left + width, upper + height, size=size)


def _numbers(bbox: Field) -> Sequence[float]:
    bbox.to(list[int | float])
    if len(bbox.value) != 4:
        raise bbox.wrong("[left, upper, width, height]")
    return bbox.value


def _key(annotation: Field) -> Key | None:
    key = annotation["id"].value
    return key if type(key) in (int, str) else None


def is_coco(root: Field) -> bool:
    """Whether a file's value has the form of COCO annotations."""
    return isinstance(root.value, dict) and {"images", "annotations"} <= set(root.value)


def from_sa1b(root: Field) -> Field:
    """A file of SA-1B, which has one `image`, in the form of COCO's; any other as it is."""
    value = root.value
    if (
        not isinstance(value, dict)
        or not isinstance(value.get("image"), dict)
        or not isinstance(value.get("annotations"), list)
    ):
        return root
    image = {**value["image"], "id": 0}
    annotations = [{**one, "image_id": 0} if isinstance(one, dict) else one for one in value["annotations"]]
    return Field(root.source, {"images": [image], "annotations": annotations}, root.where, root.error)
