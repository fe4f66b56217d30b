"""Where data sets keep COCO annotations and their pictures: COCO's own layout, CVAT's, Roboflow's, FiftyOne's.

coco/annotations/instances_val2017.json          coco/val2017/*.jpg, coco/images/val2017/*.jpg
cvat/annotations/instances_default.json          cvat/images/default/*.jpg, cvat/images/*.jpg
roboflow/train/_annotations.coco.json            beside it
fiftyone/labels.json                             fiftyone/data/*.jpg
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

ANNOTATIONS = "annotations"
_INSTANCES = "instances"  # COCO's and CVAT's files of regions; beside them lie those of captions and keypoints
_ROBOFLOW = "_annotations.coco.json"
_CVAT = "annotations.xml"


def annotation_files(given: Path) -> Iterator[list[Path]]:
    """JSON files that may be COCO's, of one place after another; of each, the likeliest alone.

    given: such a file, the folder that holds it, or the data set's. `OSError` as from the disk.
    """
    if given.is_file():
        yield [given]
        return
    for folder in (given, given / ANNOTATIONS):
        yield _likeliest(sorted(path for path in folder.glob("*.json") if path.is_file()))
    yield sorted(given.glob(f"*/{_ROBOFLOW}"))


def picture_folders(annotations: Path) -> tuple[Path, ...]:
    """The folders in which the pictures of a file may lie, the likeliest first."""
    folder = annotations.parent
    root = folder.parent if folder.name.lower() == ANNOTATIONS else folder
    split = _split(annotations)
    places = [folder, folder / "images"]
    if split:
        places += [root / split, root / "images" / split]
    places += [root, root / "images", root / "data", *_folders(root), *_folders(root / "images")]
    return tuple(dict.fromkeys(places))


def unread(folder: Path) -> str | None:
    """A remark about annotations that are there in a form that is not read."""
    found = next((path for path in (folder / _CVAT, folder / ANNOTATIONS / _CVAT) if path.is_file()), None)
    return None if found is None else f"{found.relative_to(folder)} is CVAT's own format; export it as COCO 1.0"


def _likeliest(files: Sequence[Path]) -> list[Path]:
    """Those of instances, of these those whose split has a folder of pictures; all where that leaves none."""
    instances = [path for path in files if path.stem.lower().startswith(_INSTANCES)]
    at_hand = [path for path in instances if any(place.is_dir() for place in _of_split(path))]
    return list(at_hand or instances or files)


def _of_split(annotations: Path) -> list[Path]:
    split = _split(annotations)
    roots = (annotations.parent, annotations.parent.parent)
    return [place for root in roots for place in (root / split, root / "images" / split)] if split else []


def _split(annotations: Path) -> str:
    """`val2017` of `instances_val2017.json`."""
    stem = annotations.stem
    return stem[len(_INSTANCES) :].strip("_-") if stem.lower().startswith(_INSTANCES) else ""


def _folders(place: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in place.iterdir() if path.is_dir())
    return []
