"""INPUT of gar-label: a file or a folder of COCO, LVIS, SA-1B, labelme, jobs or Parquet, as a stream of entries."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarError, GarPromptError
from gar_edge.runtime.files.addresses import local_file, not_a_file
from gar_edge.runtime.files.fields import Field, read_json
from gar_edge.runtime.files.json_stream import elements, members
from gar_edge.runtime.label.coco_input import Part, coco_entries
from gar_edge.runtime.label.entry import Entry, rows_of
from gar_edge.runtime.label.parquet_input import parquet_entries
from gar_edge.runtime.regions.coco import from_sa1b
from gar_edge.runtime.regions.labelme import shape_groups

_FILES = (".json", ".jsonl", ".parquet")
_SIZE = ("imageWidth", "imageHeight")
_NAMES = ("image", "mask", "scribble")  # fields of a job that name files


@dataclass(frozen=True)
class Input:
    """path: a file, or a folder, all files beneath which are read. pictures: where pictures lie; None: beside."""

    path: Path
    pictures: Path | None = None

    @property
    def folder(self) -> Path:
        """What files and pictures are named relative to."""
        return (self.path if self.path.is_dir() else self.path.parent).resolve()

    def files(self) -> list[Path]:
        """All files with regions; `GarPromptError` where there is none."""
        if not self.path.exists():
            raise GarPromptError(f"{self.path}: no such file or folder; name COCO, LVIS, labelme, jobs or Parquet")
        if not self.path.is_dir():
            if self.path.suffix.lower() not in _FILES:
                raise GarPromptError(f"{self.path}: its name must end in {', '.join(_FILES)}")
            return [self.path.resolve()]
        found = sorted(
            one for one in self.folder.rglob("*") if one.suffix.lower() in _FILES and _visible(one, self.folder)
        )
        if not found:
            raise GarPromptError(f"{self.path}: holds no file that ends in {', '.join(_FILES)}")
        return found

    def entries(self, question: str | None) -> Iterator[Entry]:
        """A row's entry each, in the files' order. A file of a folder that cannot be read is one row with an error;
        `GarPromptError` where it is the only file.
        """
        files = self.files()
        for file in files:
            source = file.relative_to(self.folder).as_posix()
            try:
                for entry in self._of(file, source):
                    yield from rows_of(entry, question)
            except GarError as error:
                if len(files) == 1:
                    raise GarPromptError(str(error)) from None
                yield Entry(source, 0, None, str(error))

    def _of(self, file: Path, source: str) -> Iterator[Entry]:
        if file.suffix.lower() == ".parquet":
            return parquet_entries(file, source)
        if file.suffix.lower() == ".jsonl":
            return self._jobs(_lines(file), source)
        return self._json(file, source)

    def _json(self, file: Path, source: str) -> Iterator[Entry]:
        """By the first member that tells the form; COCO's lists may be longer than memory."""
        names = _heads(file)
        if None in names:
            return self._jobs((value for _, _, value in elements(file)), source)
        if "shapes" in names:
            return self._labelme(read_json(file), file, source)
        if "image" in names and "annotations" in names:
            root = from_sa1b(read_json(file)).value
            return coco_entries(partial(_members, root), source, self.folder, self._roots(file))
        if names & {"images", "annotations"}:
            return coco_entries(partial(elements, file), source, self.folder, self._roots(file))
        if "image" in names:
            return self._jobs(iter([read_json(file).value]), source)
        raise GarPromptError(f"{file}: is neither COCO annotations, nor labelme's shapes, nor a list of jobs")

    def _jobs(self, values: Iterator[Any], source: str) -> Iterator[Entry]:
        where = source.rpartition("/")[0]
        for place, value in enumerate(values):
            if isinstance(value, GarError):
                yield Entry(source, place, None, str(value))
            else:
                yield Entry(source, place, _moved(value, where))

    def _labelme(self, root: Field, file: Path, source: str) -> Iterator[Entry]:
        about = root["imagePath"].value
        if not isinstance(about, str) or not about:
            raise root["imagePath"].wrong("the picture's name")
        folder = self.pictures.resolve() if self.pictures else file.parent
        name = _relative(folder / about.replace("\\", "/"), self.folder)
        size = {key: root.value[key] for key in _SIZE if root.value.get(key) is not None}
        for place, group in enumerate(shape_groups(root)):
            yield Entry(source, place, {"image": name, "regions": [{"shapes": [one.value for one in group], **size}]})

    def _roots(self, file: Path) -> list[Path]:
        """Where the pictures of a COCO file may lie: as named, beside it, or as CVAT packs them."""
        if self.pictures is not None:
            return [self.pictures.resolve()]
        above, subset = file.parent.parent, file.stem.rpartition("_")[2]
        return [file.parent, file.parent / "images", above / "images" / subset, above / "images", above / subset, above]


def _heads(file: Path) -> set[str | None]:
    """The first members of a file, as far as they are needed to tell its form; None: it is no object."""
    seen: set[str | None] = set()
    for name in members(file):
        seen.add(name)
        if seen & {None, "images", "shapes", "annotations"}:
            break
    return seen


def _members(root: dict[str, Any]) -> Iterator[Part]:
    for name in ("images", "annotations"):
        yield from ((name, place, value) for place, value in enumerate(root[name]))


def _lines(file: Path) -> Iterator[Any]:
    """The values of JSON lines; for one that is none, the error."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(one for one in lines if one.strip()):
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield GarPromptError(f"{file.name}: [{number}] is not JSON ({' '.join(str(error).split())})")
    except (OSError, UnicodeDecodeError) as error:
        raise GarPromptError(f"{file}: cannot be read ({error})") from None


def _moved(value: Any, where: str) -> Any:
    """A job whose files are named relative to its own folder, named relative to the input's."""
    if isinstance(value, list):
        return [_moved(one, where) for one in value]
    if not where or not isinstance(value, dict):
        return value
    return {
        key: f"{where}/{one}"
        if key in _NAMES and isinstance(one, str) and not not_a_file(one) and not Path(local_file(one)).is_absolute()
        else _moved(one, where)
        if key == "regions" or key.isdecimal()
        else one
        for key, one in value.items()
    }


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _visible(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)
