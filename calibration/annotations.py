"""Regions as files on disk give them: regions.json, COCO annotations, or a mask image beside each picture.

Run-length encoding is COCO's: columns from left to right, each from top to bottom, runs of 0 and 1 in turn beginning
with 0. Its text form writes a run as 5-bit groups, lowest first, in characters from "0" on; bit 5 says that another
group follows, the last group carries the sign, and from the fourth run on the difference to the run two before is
written (pycocotools, common/maskApi.c).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gar_edge.runtime.errors import GarCalibrationError, GarError, GarImageError, GarMaskError
from gar_edge.runtime.images import fit_mask, load_image, load_mask

Mask = NDArray[np.bool_]

REMEDY = "put NAME_mask.png beside each, or a regions.json or COCO annotations"
_PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
_MASK_STEM = re.compile(r"(?P<stem>.+?)(?:_mask(?:_(?P<number>\d+))?|\.mask)")
_NUMBERED = re.compile(r"(?P<stem>.+)_(?P<number>\d+)")
_MOST_GROUPS = 7  # of 5 bits: a longer run exceeds every picture
_FURTHEST = 1e6  # pixels: beyond it a polygon's coordinate is an error, not a point


class Region(Protocol):
    """One marked region of a picture."""

    def mask(self, width: int, height: int) -> Mask:
        """The region as bool [height,width]; `GarMaskError` where it cannot be read."""


@dataclass(frozen=True)
class Runs:
    """A run-length encoded mask [height,width]; `counts` as a list or in the text form."""

    width: int
    height: int
    counts: str | Sequence[int]

    def mask(self, width: int, height: int) -> Mask:
        counts = decode_counts(self.counts) if isinstance(self.counts, str) else self.counts
        return fit_mask(decode_runs(counts, self.width, self.height), width, height)


@dataclass(frozen=True)
class Polygons:
    """Outlines (x1, y1, x2, y2, …; pixels) that together make one region of a picture of `size` (width, height)."""

    outlines: Sequence[Sequence[float]]
    size: tuple[int, int] | None

    def mask(self, width: int, height: int) -> Mask:
        filled = np.zeros(_checked(*(self.size or (width, height)))[::-1], np.bool_)
        for outline in self.outlines:
            if len(outline) < 6 or len(outline) % 2:
                raise GarMaskError(
                    f"a polygon of {len(outline)} numbers; three points or more are needed, x and y each"
                )
            if not all(-_FURTHEST < at < _FURTHEST for at in outline):
                raise GarMaskError(f"a polygon leaves the range of ±{_FURTHEST:.0f} pixels")
            filled |= fill_polygon(np.reshape(outline, (-1, 2)), *filled.shape[::-1])
        return fit_mask(filled, width, height)


@dataclass(frozen=True)
class MaskFile:
    """A mask image."""

    path: Path

    def mask(self, width: int, height: int) -> Mask:
        try:
            return fit_mask(load_mask(self.path), width, height)
        except GarMaskError as error:
            raise GarMaskError(f"{self.path.name}: {_without_path(error, self.path)}") from None


@dataclass(frozen=True)
class Entry:
    """A picture by its name relative to one of `folders`, its regions, and the question that names them all, if any.

    `together`: the regions belong in one prompt; otherwise any of them may be asked about.
    """

    name: str
    folders: tuple[Path, ...]
    regions: tuple[Region, ...]
    question: str | None = None
    together: bool = False

    def image(self) -> NDArray[np.uint8]:
        """RGB [H,W,3]; `GarImageError` where it is missing, unreadable or outside the folder."""
        if Path(self.name).is_absolute() or ".." in Path(self.name).parts:
            raise GarImageError("lies outside the folder")
        try:
            path = next((path for folder in self.folders if (path := folder / self.name).is_file()), None)
        except (OSError, ValueError):  # a name that is too long, holds a zero byte, leads through a locked folder, …
            path = None
        if path is None:
            raise GarImageError("no such image file")
        try:
            return load_image(path)
        except GarImageError as error:
            raise GarImageError(_without_path(error, path)) from None


def read_folder(folder: Path) -> tuple[str, list[Entry]]:
    """What kind of annotations a folder holds, in words, and its entries.

    Looks for regions.json, then for one COCO file, then for mask images. `GarCalibrationError` where there is none of
    them, or where a file's structure is wrong.
    """
    try:
        if not folder.is_dir():
            what = "not a folder" if folder.exists() else "no such folder"
            raise GarCalibrationError(f"{folder}: {what}; give one with pictures and their masks")
        if (folder / "regions.json").is_file():
            return "regions.json", list(_regions_json(folder / "regions.json"))
        files = {path: _json(path) for path in sorted(folder.glob("*.json")) if path.is_file()}
        coco = [
            path for path, data in files.items() if isinstance(data, dict) and {"images", "annotations"} <= set(data)
        ]
        if len(coco) > 1:
            names = ", ".join(path.name for path in coco)
            raise GarCalibrationError(f"{folder}: holds {len(coco)} COCO files ({names}); leave one of them")
        if coco:
            return coco[0].name, list(_coco(coco[0], files[coco[0]]))
        return "mask images", _mask_images(folder, [path.name for path in files])
    except OSError as error:
        raise GarCalibrationError(f"{folder}: cannot be read ({error.strerror})") from None


def decode_counts(text: str) -> list[int]:
    """The runs that COCO's text form stands for; `GarMaskError` where it is none."""
    counts: list[int] = []
    value = groups = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or groups == _MOST_GROUPS:
            raise GarMaskError("its counts are not COCO run lengths")
        value |= (code & 31) << 5 * groups
        groups += 1
        if code & 32:
            continue
        if code & 16:
            value -= 1 << 5 * groups
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = groups = 0
    if groups:
        raise GarMaskError("its counts end in the middle of a run")
    return counts


def decode_runs(counts: Sequence[int], width: int, height: int) -> Mask:
    """Run lengths as bool [height,width]; `GarMaskError` where they do not add up to that."""
    _checked(width, height)
    if any(count < 0 for count in counts):
        raise GarMaskError("its counts have a negative run")
    if sum(counts) != width * height:
        raise GarMaskError(f"its counts cover {sum(counts)} pixels, its size {width}x{height} has {width * height}")
    marked = np.arange(len(counts)) % 2 == 1
    return np.repeat(marked, counts).reshape(width, height).T


def fill_polygon(points: NDArray[np.floating], width: int, height: int) -> Mask:
    """The pixels, as bool [height,width], whose centres the outline [n,2] (x, y) goes round, by the even-odd rule."""
    flips = np.zeros((height, width + 1), np.bool_)  # [y, x]: inside and outside change places from x on
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        first, last = np.clip(np.ceil(np.sort([y1, y2]) - 0.5), 0, height).astype(int)
        rows = np.arange(first, last)
        if len(rows):
            crossings = x1 + (rows + 0.5 - y1) * (x2 - x1) / (y2 - y1)
            flips[rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)] ^= True
    return np.logical_xor.accumulate(flips, axis=1)[:, :width]


def _checked(width: int, height: int) -> tuple[int, int]:
    """The size, unless it would fill the memory."""
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise GarMaskError(f"its size {width}x{height} is over {Image.MAX_IMAGE_PIXELS} pixels")
    return width, height


def _without_path(error: GarError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise GarCalibrationError(f"{path}: not JSON that can be read ({reason}); correct or remove it") from None


@dataclass(frozen=True)
class _Field:
    """A value in a JSON file and the way to it, which errors name."""

    file: Path
    where: str
    value: Any

    def __getitem__(self, key: str) -> _Field:
        """A field of an object; its value is None where there is none."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return _Field(self.file, f"{self.where}.{key}".lstrip("."), self.value.get(key))

    def items(self) -> Iterator[_Field]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return (_Field(self.file, f"{self.where}[{i}]", value) for i, value in enumerate(self.value))

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.wrong("a text")
        return self.value

    def whole(self, least: int = 0) -> int:
        if type(self.value) is not int or self.value < least:  # a bool is no number here
            raise self.wrong(f"a whole number from {least} on")
        return self.value

    def numbers(self, expected: str, *kinds: type) -> list[Any]:
        """A list of nothing but numbers of these types, as it is: there may be millions."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        if {type(at) for at in self.value} <= set(kinds):
            return self.value
        raise next(item for item in self.items() if type(item.value) not in kinds).wrong(expected)

    def runs(self) -> Runs:
        """COCO run-length encoding: {"size": [height, width], "counts": text or list}."""
        counts = self["counts"]
        coded = counts.text() if isinstance(counts.value, str) else counts.numbers("a whole number", int)
        size = [side.whole(1) for side in self["size"].items()]
        if len(size) != 2:
            raise self["size"].wrong("[height, width]")
        return Runs(size[1], size[0], coded)

    def wrong(self, expected: str) -> GarCalibrationError:
        found = "missing" if self.value is None else f"is {json.dumps(self.value)[:40]}"
        return GarCalibrationError(f"{self.file}: {self.where or 'the file'} {found}; it must be {expected}")


def _regions_json(path: Path) -> Iterator[Entry]:
    for item in _Field(path, "", _json(path)).items():
        question = item["question"]
        yield Entry(
            item["image"].text(),
            (path.parent,),
            tuple(region.runs() for region in item["mask_rles"].items()),
            None if question.value in (None, "") else question.text(),
            together=True,
        )


def _coco(path: Path, data: Any) -> Iterator[Entry]:
    root = _Field(path, "", data)
    regions: dict[Any, list[Region]] = {}
    sizes: dict[Any, tuple[int, int] | None] = {}
    for image in root["images"].items():
        key = _key(image["id"])
        regions[key] = []
        sized = image["width"].value is not None and image["height"].value is not None
        sizes[key] = (image["width"].whole(1), image["height"].whole(1)) if sized else None
    for annotation in root["annotations"].items():
        shape, owner = annotation["segmentation"], annotation["image_id"]
        if not shape.value:
            continue  # boxes and captions mark no region
        key = _key(owner)
        if key not in regions:
            raise GarCalibrationError(
                f"{path}: {owner.where} is {key!r}, which images lacks; add the picture or drop the annotation"
            )
        if isinstance(shape.value, dict):
            regions[key].append(shape.runs())
        else:
            outlines = [outline.numbers("a number", int, float) for outline in shape.items()]
            regions[key].append(Polygons(outlines, sizes[key]))
    folders = (path.parent, path.parent / "images")
    for image in root["images"].items():
        if found := regions[image["id"].value]:
            yield Entry(image["file_name"].text(), folders, tuple(found))


def _key(field: _Field) -> int | str:
    return field.text() if isinstance(field.value, str) else field.whole()


def _mask_images(folder: Path, ignored: Sequence[str]) -> list[Entry]:
    """Pictures in the folder or in images/ with masks beside them or in masks/."""
    places = [place for place in (folder, folder / "images") if place.is_dir()]
    files = [path for place in places for path in sorted(place.iterdir()) if path.is_file()]
    pictures = [path for path in files if path.suffix.lower() in _PICTURES and not _is_mask(path)]
    stems = {path.stem for path in pictures}
    masks: dict[str, list[tuple[int, Path]]] = {stem: [] for stem in stems}
    for path in files:
        match = _MASK_STEM.fullmatch(path.stem)
        if _is_mask(path) and match and match["stem"] in stems:
            masks[match["stem"]].append((int(match["number"] or -1), path))
    beneath = sorted((folder / "masks").iterdir()) if (folder / "masks").is_dir() else []
    for path in (path for path in beneath if path.suffix.lower() == ".png"):
        match = _NUMBERED.fullmatch(path.stem)
        if path.stem in stems:
            masks[path.stem].append((-1, path))
        elif match and match["stem"] in stems:
            masks[match["stem"]].append((int(match["number"]), path))
    if not any(masks.values()):
        held = f"{len(pictures)} picture{'s' * (len(pictures) != 1)} but no masks" if pictures else "no pictures"
        also = f" ({', '.join(ignored[:3])}: neither regions.json nor COCO)" if ignored else ""
        raise GarCalibrationError(f"{folder}: holds {held}{also}; {REMEDY}")
    return [
        Entry(path.name, (path.parent,), tuple(MaskFile(mask) for _, mask in sorted(masks[path.stem])))
        for path in pictures
    ]


def _is_mask(path: Path) -> bool:
    return path.suffix.lower() == ".png" and _MASK_STEM.fullmatch(path.stem) is not None
