"""Pictures with regions as folders give them: regions.json, COCO annotations, or a mask image beside each picture."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gar_edge.calibration.layouts import annotation_files, picture_folders, unread
from gar_edge.runtime.errors import GarCalibrationError, GarImageError
from gar_edge.runtime.files.fields import Field, Text, read_json
from gar_edge.runtime.images.loading import Picture, load_picture
from gar_edge.runtime.images.shape import Mask, match_mask
from gar_edge.runtime.regions.coco import Coco, is_coco
from gar_edge.runtime.regions.find import turn_untold
from gar_edge.runtime.regions.kinds import Marked
from gar_edge.runtime.regions.labels import MaskFile
from gar_edge.runtime.regions.names import name_parts
from gar_edge.runtime.regions.reading import Reading
from gar_edge.runtime.regions.rle import read_runs

REMEDY = "put NAME_mask.png beside each, or a regions.json or COCO annotations"
_PICTURES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
_MASK_STEM = re.compile(r"(?P<stem>.+?)(?:_mask(?:_(?P<number>\d+))?|\.mask)")
_NUMBERED = re.compile(r"(?P<stem>.+)_(?P<number>\d+)")


@dataclass(frozen=True)
class Entry:
    """A picture by its name relative to one of `folders`, its regions, and the question that names them all, if any.

    `together`: the regions belong in one prompt; otherwise any of them may be asked about.
    """

    name: str
    folders: tuple[Path, ...]
    regions: tuple[Marked, ...]
    question: str | None = None
    together: bool = False

    def image(self) -> Picture:
        """The picture, upright; `GarImageError` where it is missing, unreadable or outside the folder."""
        if Path(self.name).is_absolute() or ".." in re.split(r"[/\\]", self.name):
            raise GarImageError("lies outside the folder")
        names = dict.fromkeys((self.name, self.name.replace("\\", "/")))  # as Windows writes paths
        try:
            places = (folder / name for name in names for folder in self.folders)
            path = next((path for path in places if path.is_file()), None)
        except (OSError, ValueError):  # a name that is too long, holds a zero byte, leads through a locked folder, …
            path = None
        if path is None:
            raise GarImageError("no such image file")
        try:
            return load_picture(path)
        except GarImageError as error:
            raise GarImageError(str(error).removeprefix(f"{path}: ")) from None


def draw_regions(name: str, picture: Picture, regions: Mapping[int, Marked]) -> dict[int, Mask]:
    """The masks [H,W] of a picture's regions; `GarMaskError` where one is unreadable or of another shape.

    Warns where EXIF turned the picture and nothing tells whether the regions are of the turned or the stored one.
    """
    height, width = picture.pixels.shape[:2]
    drawn = {number: region.draw(width, height) for number, region in regions.items()}
    masks = {number: match_mask(mask, width, height, picture.turn) for number, mask in drawn.items()}
    if any(turn_untold(region, picture.turn) for region in regions.values()):
        warnings.warn(
            f"{name}: the picture is {picture.turn}; its regions are taken for the upright picture's", stacklevel=2
        )
    return masks


@dataclass(frozen=True)
class Annotated:
    """What a folder holds: `kind` of annotations, in words; its entries; "name: why" of what could not be read."""

    kind: str
    entries: list[Entry]
    skipped: list[str]


def read_folder(folder: Path) -> Annotated:
    """The annotated pictures of a folder.

    Looks for regions.json, then for one COCO file (see `layouts`), then for mask images. A COCO file itself will do,
    too. What cannot be read is left out; `GarCalibrationError` where there is nothing of the kind, or nothing left.
    """
    try:
        if not folder.is_dir() and not (folder.suffix.lower() == ".json" and folder.is_file()):
            what = "not a folder" if folder.exists() else "no such folder"
            raise GarCalibrationError(f"{folder}: {what}; give one with pictures and their masks")
        if (folder / "regions.json").is_file():
            return _regions_json(folder / "regions.json")
        ignored: list[str] = []
        for place in annotation_files(folder):
            files = {path: read_json(path, GarCalibrationError) for path in place}
            coco = [path for path, data in files.items() if _marks_regions(data)]
            names = [str(path.relative_to(folder)) if path != folder else path.name for path in coco]
            if len(coco) > 1:
                raise GarCalibrationError(
                    f"{folder}: holds {len(coco)} COCO files ({', '.join(names)}); leave one of them, or name one"
                )
            if coco:
                return replace(_coco(coco[0], files[coco[0]]), kind=names[0])
            ignored += [path.name for path in files]
        if not folder.is_dir():
            raise GarCalibrationError(f"{folder}: not COCO annotations; give these, or a folder of pictures and masks")
        return Annotated("mask images", _mask_images(folder, ignored), [])
    except OSError as error:
        raise GarCalibrationError(f"{folder}: cannot be read ({error.strerror})") from None


def _marks_regions(data: Field) -> bool:
    """Whether it has COCO's lists, and not captions alone."""
    if not is_coco(data):
        return False
    annotations = data.value["annotations"]
    captions = (
        isinstance(annotations, list)
        and annotations
        and all(isinstance(one, dict) and "caption" in one and "segmentation" not in one for one in annotations)
    )
    return not captions


def _regions_json(path: Path) -> Annotated:
    entries: list[Entry] = []
    reading = Reading()
    for item in read_json(path, GarCalibrationError).items():
        with reading.skipping():
            name, question = item["image"].to(Text), item["question"]
            asked = None if question.value in (None, "") else question.to(Text)
            regions = tuple(read_runs(region) for region in item["mask_rles"].items())
            entries.append(Entry(name, (path.parent,), regions, asked, together=True))
    return _left(path, entries, reading.skipped)


def _coco(path: Path, root: Field) -> Annotated:
    coco = Coco(root)
    entries: list[Entry] = []
    skipped = [*coco.skipped, *(str(one.wrong("an object with image_id")) for one in coco.ownerless)]
    for annotation in coco.strangers():
        owner = annotation["image_id"]
        skipped.append(
            f"{path}: {owner.where} is {owner.value!r}, which images lacks; add the picture or drop the annotation"
        )
    folders = picture_folders(path)
    for image, place in coco.images:
        reading = coco.regions(image, boxes=False)  # boxes and captions mark no region
        regions = tuple(region for region in reading.regions if isinstance(region, Marked))
        if not image.names:
            skipped.append(str(place["file_name"].wrong("a text")))
            continue
        name = "/".join(name_parts(image.names[0]))
        if image.file_name is None:  # LVIS names pictures by COCO's address alone: the split and the file are its end
            name = "/".join(name.split("/")[-2:])
        skipped.extend(f"{name}: {why.removeprefix(f'{path}: ')}" for why in reading.skipped)
        if regions:
            entries.append(Entry(name, folders, regions))
    return _left(path, entries, skipped)


def _left(path: Path, entries: list[Entry], skipped: list[str]) -> Annotated:
    """What a file holds; its first error where nothing can be read."""
    notes = [why.removeprefix(f"{path}: ") for why in skipped]
    if not entries and notes:
        raise GarCalibrationError(f"{path}: {notes[0]}")
    return Annotated(path.name, entries, notes)


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
        raise GarCalibrationError(f"{folder}: holds {held}{also}; {unread(folder) or REMEDY}")
    return [
        Entry(path.name, (path.parent,), tuple(MaskFile(mask) for _, mask in sorted(masks[path.stem])))
        for path in pictures
    ]


def _is_mask(path: Path) -> bool:
    return path.suffix.lower() == ".png" and _MASK_STEM.fullmatch(path.stem) is not None
