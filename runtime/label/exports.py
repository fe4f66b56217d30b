"""An output's rows in other forms: JSON lines, and COCO with captions. Memory is that of a part."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gar_edge.runtime.files.atomic import renamed
from gar_edge.runtime.label.output import Output

_SOME = 256  # rows in memory at a time
_JSON = ("regions", "origin", "value", "details")  # columns whose texts are JSON


def rows_of_output(output: Output) -> Iterator[dict[str, Any]]:
    """All finished rows by column, in the plan's order, columns of JSON as their values."""
    import pyarrow.parquet as pq

    for path in output.finished():
        for batch in pq.ParquetFile(path).iter_batches(_SOME):
            for row in batch.to_pylist():
                yield row | {name: json.loads(row[name]) for name in _JSON if row[name] is not None}


def write_jsonl(output: Output, path: Path) -> None:
    """A JSON line per row, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with renamed(path) as scratch, scratch.open("w", encoding="utf-8") as file:
        for row in rows_of_output(output):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_coco(output: Output, path: Path) -> None:
    """COCO's form, a `caption` in each annotation; rows with errors have `caption_error` instead.

    Ids of pictures and annotations, boxes, outlines and run lengths are the input's, where it has them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with renamed(path) as scratch, scratch.open("w", encoding="utf-8") as file, tempfile.TemporaryFile("w+") as images:
        file.write('{"annotations": [')
        last, pictures = None, 0
        for number, row in enumerate(rows_of_output(output)):
            if row["image"] != last:  # a picture's rows follow each other
                last, pictures = row["image"], pictures + 1
                _add(images, pictures == 1, _picture(row, pictures))
            _add(file, number == 0, _annotation(row, number + 1, pictures))
        file.write('\n],\n"images": [')
        images.seek(0)
        shutil.copyfileobj(images, file)
        file.write("\n]}\n")


def _add(file: IO[str], first: bool, value: dict[str, Any]) -> None:
    file.write(("\n" if first else ",\n") + json.dumps(value, ensure_ascii=True))


def _picture(row: dict[str, Any], number: int) -> dict[str, Any]:
    picture = {"id": (row["origin"] or {}).get("image_id", number), "file_name": row["image"]}
    size = _first(row).get("size")
    if isinstance(size, list) and len(size) == 2:
        picture |= {"height": size[0], "width": size[1]}
    return picture


def _annotation(row: dict[str, Any], number: int, picture: int) -> dict[str, Any]:
    region, origin = _first(row), row["origin"] or {}
    annotation = {"id": number, "image_id": picture, **origin}
    if "counts" in region:
        annotation["segmentation"] = {"size": region.get("size"), "counts": region["counts"]}
    for name, given in (("segmentation", "segmentation"), ("segmentation", "polygons"), ("bbox", "bbox")):
        if region.get(given) is not None:
            annotation[name] = region[given]
    if row["error"] is None:
        return annotation | {"caption": row["text"]}
    return annotation | {"caption_error": row["error"]}


def _first(row: dict[str, Any]) -> dict[str, Any]:
    """The row's region, where it is one of an object's form."""
    regions = row["regions"]
    first = regions[0] if isinstance(regions, list) and regions else None
    return first if isinstance(first, dict) else {}
