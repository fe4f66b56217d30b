"""Parquet as an input: a row is a job by its columns; pictures and masks inside it are named, and read by their names.

`data.parquet#12/image` is what the column `image` holds in row 12, `data.parquet#12/masks/3` the fourth of its `masks`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.files.fields import Field, json_within
from gar_edge.runtime.label.entry import Entry

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_CELL = re.compile(r"(?P<file>.+\.parquet)#(?P<row>\d+)/(?P<column>\w+)(?:/(?P<item>\d+))?", re.DOTALL)
_ROWS = 256  # that are made entries at a time
_PICTURES = 8  # rows whose pictures are in memory at a time
_PLAIN = ("id", "question", "choices", "choose", "abstain_below", "normalise", "schema", "regex", "grammar", "logprobs")
_REGIONS = ("regions", "masks", "mask", "box", "rle", "segmentation", "bbox", "polygons", "points", "not_points")


def parquet_entries(path: Path, source: str) -> Iterator[Entry]:
    """A file's rows; `GarPromptError` for what is no Parquet, and where columns of pictures or regions are missing."""
    file = _open(path)
    schema = file.schema_arrow
    if "image" not in schema.names or not set(_REGIONS) & set(schema.names):
        raise GarPromptError(
            f"{path}: has columns {', '.join(schema.names[:8])}; image is needed, and one of {', '.join(_REGIONS)}"
        )
    kinds = {name: _kind(schema.field(name).type) for name in ("image", "mask", "masks") if name in schema.names}
    read = [name for name in (*_PLAIN, *_REGIONS, "size") if name in schema.names and kinds.get(name) != "bytes"]
    read += ["image"] if kinds["image"] == "text" else []
    lengths = "masks" if kinds.get("masks") == "bytes" else None
    row = 0
    for batch in file.iter_batches(_ROWS, columns=[*read, *([lengths] if lengths else [])] or None):
        counts = batch.column(lengths).value_lengths().to_pylist() if lengths else []
        for number, values in enumerate(batch.select(read).to_pylist() if read else [{}] * batch.num_rows):
            cell = f"{source}#{row}"
            if kinds["image"] == "bytes":
                values["image"] = f"{cell}/image"
            if kinds.get("mask") == "bytes":
                values["mask"] = f"{cell}/mask"
            if lengths:
                values["masks"] = [f"{cell}/masks/{item}" for item in range(counts[number] or 0)]
            yield _entry(source, row, _without_none(values))
            row += 1


def _entry(source: str, place: int, values: dict[str, Any]) -> Entry:
    try:
        entry: dict[str, Any] = {name: values[name] for name in (*_PLAIN, "image") if name in values}
        for name in ("choices", "choose", "schema"):
            if isinstance(entry.get(name), str):
                entry[name] = json_within(Field(source, entry[name], f"[{place}].{name}", GarPromptError))
        entry["regions"] = _regions(source, place, values)
    except GarPromptError as error:
        return Entry(source, place, {"image": values.get("image")}, str(error))
    return Entry(source, place, entry)


def _regions(source: str, place: int, values: dict[str, Any]) -> Any:
    """The regions of a row, in the form of jobs."""
    if "regions" in values:
        given = values["regions"]
        return (
            json_within(Field(source, given, f"[{place}].regions", GarPromptError)) if isinstance(given, str) else given
        )
    if "masks" in values:
        return [{"mask": mask} for mask in values["masks"]]
    if "mask" in values:
        return [{"mask": values["mask"]}]
    if "rle" in values:
        return [values["rle"]]
    region = {name: values[name] for name in (*_REGIONS, "size") if name in values}
    return [{"segmentation": None, **region} if "bbox" in region else region]


def _without_none(value: Any) -> Any:
    """Arrow fills what a struct lacks with None; a job leaves it out."""
    if isinstance(value, dict):
        return {name: _without_none(one) for name, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


def _kind(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return "text" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else "bytes"


class Cells:
    """Reads pictures and masks that Parquet files hold. Rows are meant to be asked for in their order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._columns: dict[tuple[str, str], _Column] = {}

    def __call__(self, name: str) -> bytes | None:
        """What a name stands for; None for a name of another form. `GarPromptError` where it cannot be read."""
        match = _CELL.fullmatch(name)
        if match is None:
            return None
        key = match["file"], match["column"]
        if key not in self._columns:
            self._columns[key] = _Column(self._folder / match["file"], match["column"])
        value = self._columns[key][int(match["row"])]
        if match["item"] is not None and isinstance(value, list):
            value = value[int(match["item"])]
        if isinstance(value, dict):
            value = value.get("bytes")  # as datasets keep pictures: with a path beside
        if not isinstance(value, bytes):
            raise GarPromptError(f"{name}: holds no picture's bytes")
        return value


class _Column:
    """A column's values by row, of which a few are in memory."""

    def __init__(self, path: Path, name: str) -> None:
        self._file = _open(path)
        self._name = name
        self._rows: list[Any] = []
        self._first = -1  # row of the first one in memory
        self._batches: Iterator[Any] = iter(())

    def __getitem__(self, row: int) -> Any:
        if self._first < 0 or row < self._first:
            self._seek(row)
        while row >= self._first + len(self._rows):
            self._first += len(self._rows)
            self._rows = next(self._batches).column(0).to_pylist()
        return self._rows[row - self._first]

    def _seek(self, row: int) -> None:
        """Go to the beginning of the row group that has the row."""
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        ends = list(accumulate(sizes))
        group = bisect_right(ends, row)
        self._first, self._rows = ends[group] - sizes[group], []
        groups = range(group, self._file.num_row_groups)
        self._batches = self._file.iter_batches(_PICTURES, row_groups=groups, columns=[self._name])


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise GarPromptError(f"{path}: no Parquet that can be read ({' '.join(str(error).split())})") from None
