"""COCO and LVIS files as entries: an annotation each, read as a stream, since such files exceed memory."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.files.fields import Field
from gar_edge.runtime.label.entry import ORIGIN, Entry
from gar_edge.runtime.regions.coco import CocoImage
from gar_edge.runtime.regions.names import name_parts

Part = tuple[str | None, int, Any]
_REGION = ("segmentation", "bbox")
_BESIDE = ("id", "image_id", "category_id", "area", "iscrowd")  # kept for the captions' file


def coco_entries(read: Callable[[], Iterator[Part]], source: str, folder: Path, roots: list[Path]) -> Iterator[Entry]:
    """The annotations of a file that `read` reads from its beginning, twice: its pictures first.

    folder: of the input, relative to which pictures are named. roots: where they may lie; the first one that has the
    file's first picture is taken.
    """
    naming = _Naming(folder, roots)
    with closing(sqlite3.connect("", isolation_level=None)) as pictures:  # a file of its own, gone afterwards
        pictures.execute("CREATE TABLE pictures (id TEXT PRIMARY KEY, name TEXT, size TEXT) WITHOUT ROWID")
        pictures.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?)", _pictures(read(), source, naming))
        for member, place, value in read():
            if member == "annotations":
                yield _entry(source, place, value, pictures)


def _pictures(parts: Iterator[Part], source: str, naming: _Naming) -> Iterator[tuple[str, str, str | None]]:
    for member, place, value in parts:
        if member != "images":
            continue
        try:
            image = Field(source, value, f"images[{place}]").to(CocoImage)
        except GarError:
            continue  # its annotations say that their picture is not there
        size = None if image.size is None else json.dumps([image.size[1], image.size[0]])
        if image.names:
            yield json.dumps(image.id), naming(image.names[0]), size


class _Naming:
    """The names of a file's pictures, relative to the input's folder."""

    def __init__(self, folder: Path, roots: list[Path]) -> None:
        self._folder, self._roots = folder, roots
        self._found: tuple[Path, int] | None = None

    def __call__(self, name: str) -> str:
        if self._found is None:
            self._found = self._first(name)
        root, last = self._found
        path = root.joinpath(*name_parts(name)[-last:]) if last else root / name
        return Path(os.path.relpath(path, self._folder)).as_posix()

    def _first(self, name: str) -> tuple[Path, int]:
        """Where the first picture lies, and how many parts of its name's end lead there; 0: the name as it is."""
        parts, address = name_parts(name), "://" in name
        for root in self._roots:
            if not address and (root / name).is_file():
                return root, 0
            for last in (len(parts), 2, 1):  # LVIS names addresses, whose last folder is often there
                if root.joinpath(*parts[-last:]).is_file():
                    return root, last
        return self._roots[0], 2 if address else 0


def _entry(source: str, place: int, value: Any, pictures: sqlite3.Connection) -> Entry:
    where = f"{source}: annotations[{place}]"
    if not isinstance(value, dict):
        return Entry(source, place, value, f"{where} is no object")
    owner = value.get("image_id")
    found = pictures.execute("SELECT name, size FROM pictures WHERE id = ?", [json.dumps(owner)]).fetchone()
    if found is None:
        return Entry(source, place, value, f"{where}: the file has no picture of id {json.dumps(owner)[:40]}")
    name, size = found
    region = {key: value[key] for key in _REGION if value.get(key) is not None}
    if size is not None:
        region["size"] = json.loads(size)
    region.setdefault("segmentation", None)
    origin = {key: value[key] for key in _BESIDE if key in value}
    return Entry(source, place, {"id": value.get("id"), "image": name, "regions": [region], ORIGIN: origin})
