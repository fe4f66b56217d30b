"""Pictures with regions as folders give them: regions.json, COCO annotations, or a mask image beside each picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gar_edge.calibration.layouts import annotation_files, picture_folders, unread
from gar_edge.runtime.errors import GarCalibrationError, GarImageError
from gar_edge.runtime.files.fields import Field, read_json
from gar_edge.runtime.images.loading import load_image
from gar_edge.runtime.regions.files import read_segmentation
from gar_edge.runtime.regions.find import Marked
from gar_edge.runtime.regions.labels import MaskFile
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

    def image(self) -> NDArray[np.uint8]:
        """RGB [H,W,3]; `GarImageError` where it is missing, unreadable or outside the folder."""
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
            return load_image(path)
        except GarImageError as error:
            raise GarImageError(str(error).removeprefix(f"{path}: ")) from None


def read_folder(folder: Path) -> tuple[str, list[Entry]]:
    """What kind of annotations a folder holds, in words, and its entries.

    Looks for regions.json, then for one COCO file (see `layouts`), then for mask images. A COCO file itself will do,
    too. `GarCalibrationError` where there is none of them, or where a file's structure is wrong.
    """
    try:
        if not folder.is_dir() and not (folder.suffix.lower() == ".json" and folder.is_file()):
            what = "not a folder" if folder.exists() else "no such folder"
            raise GarCalibrationError(f"{folder}: {what}; give one with pictures and their masks")
        if (folder / "regions.json").is_file():
            return "regions.json", list(_regions_json(folder / "regions.json"))
        ignored: list[str] = []
        for place in annotation_files(folder):
            files = {path: read_json(path, GarCalibrationError) for path in place}
            coco = [path for path in files if _is_coco(files[path])]
            names = [str(path.relative_to(folder)) if path != folder else path.name for path in coco]
            if len(coco) > 1:
                raise GarCalibrationError(
                    f"{folder}: holds {len(coco)} COCO files ({', '.join(names)}); leave one of them, or name one"
                )
            if coco:
                return names[0], list(_coco(coco[0], files[coco[0]]))
            ignored += [path.name for path in files]
        if not folder.is_dir():
            raise GarCalibrationError(f"{folder}: not COCO annotations; give these, or a folder of pictures and masks")
        return "mask images", _mask_images(folder, ignored)
    except OSError as error:
        raise GarCalibrationError(f"{folder}: cannot be read ({error.strerror})") from None


def _is_coco(data: Field) -> bool:
    """Whether it has COCO's lists, and not captions alone."""
    if not (isinstance(data.value, dict) and {"images", "annotations"} <= set(data.value)):
        return False
    annotations = data.value["annotations"]
    captions = (
        isinstance(annotations, list)
        and annotations
        and all(isinstance(one, dict) and "caption" in one and "segmentation" not in one for one in annotations)
    )
    return not captions


def _regions_json(path: Path) -> Iterator[Entry]:
    for item in read_json(path, GarCalibrationError).items():
        question = item["question"]
        yield Entry(
            item["image"].text(),
            (path.parent,),
            tuple(read_runs(region) for region in item["mask_rles"].items()),
            None if question.value in (None, "") else question.text(),
            together=True,
        )


def _coco(path: Path, root: Field) -> Iterator[Entry]:
    regions: dict[Any, list[Marked]] = {}
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
        regions[key].append(read_segmentation(shape, sizes[key]))
    folders = picture_folders(path)
    for image in root["images"].items():
        if found := regions[image["id"].value]:
            yield Entry(_file_name(image), folders, tuple(found))


def _file_name(image: Field) -> str:
    """LVIS names pictures by COCO's address alone, whose last parts are the split and the file."""
    if image["file_name"].value is None and isinstance(image["coco_url"].value, str):
        return "/".join(image["coco_url"].text().split("/")[-2:])
    return image["file_name"].text()


def _key(field: Field) -> int | str:
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
        raise GarCalibrationError(f"{folder}: holds {held}{also}; {unread(folder) or REMEDY}")
    return [
        Entry(path.name, (path.parent,), tuple(MaskFile(mask) for _, mask in sorted(masks[path.stem])))
        for path in pictures
    ]


def _is_mask(path: Path) -> bool:
    return path.suffix.lower() == ".png" and _MASK_STEM.fullmatch(path.stem) is not None
