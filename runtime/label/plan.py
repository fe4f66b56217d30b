"""The work as parts, each with the rows of some pictures: written once, so that every attempt at a part has its rows.

`plan/plan.json` beside `plan/NAME.jsonl`, a part each. A row is `{"key", "source", "place", "entry"}`, or with `error`.
Its key is a digest of its picture's name, its regions, its question and its id, and of how many rows before it have the
same: 32 hexadecimal digits, the same on every machine and in every run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarError, GarPromptError
from gar_edge.runtime.files.atomic import write_whole
from gar_edge.runtime.files.fields import Field
from gar_edge.runtime.jobs.job import Job, make_job
from gar_edge.runtime.label.entry import ORIGIN, Entry

_DIGITS = 32
_LEAST, _MOST = 32, 1024  # rows of a part
_PARTS = 256  # so many at least, where there are rows enough: the last ones must not leave workers idle for long
_ASIDE = ("image", ORIGIN, "region")  # of an entry: named by itself, or no matter of what is asked


@dataclass(frozen=True)
class PlannedRow:
    """A row that is to be."""

    key: str
    source: str
    place: int
    entry: Any = None
    error: str | None = None

    def job(self) -> Job:
        """As `jobs` answers it."""
        field = Field(self.source, self.entry, f"[{self.place}]", GarPromptError)
        job = make_job(self.place, field)
        return Job(self.key, job.what, GarPromptError(self.error) if self.error is not None else field)


@dataclass(frozen=True)
class Plan:
    """folder: of its parts. fingerprint: of all keys in their order. parts: name -> rows."""

    folder: Path
    fingerprint: str
    parts: dict[str, int]

    @property
    def rows(self) -> int:
        return sum(self.parts.values())

    @classmethod
    def read(cls, folder: Path) -> Plan | None:
        """The plan of an earlier run, None where there is none; `GarError` where it is damaged."""
        path = folder / "plan.json"
        try:
            value = json.loads(path.read_text("utf-8"))
            return cls(folder, value["fingerprint"], value["parts"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise GarError(f"{path}: cannot be read ({error}); give --out a folder of its own") from None


def rows_in(path: Path) -> list[PlannedRow]:
    """The rows of a part, in their order."""
    with path.open(encoding="utf-8") as lines:
        return [PlannedRow(**json.loads(line)) for line in lines]


class Gathered:
    """All rows of an input, grouped by picture; in a file of sqlite's beside the temporary ones, not in memory."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._base = sqlite3.connect("", isolation_level=None)
        self._base.executescript(
            "CREATE TABLE same (digest TEXT PRIMARY KEY, count INTEGER) WITHOUT ROWID;"
            "CREATE TABLE pictures (name TEXT PRIMARY KEY, first INTEGER) WITHOUT ROWID;"
            "CREATE TABLE rows (seq INTEGER PRIMARY KEY, key TEXT UNIQUE, first INTEGER, line TEXT);"
            "BEGIN"
        )
        digest = hashlib.sha256()
        self.count = 0
        for entry in entries:
            digest.update(self._add(entry).encode())
        self.fingerprint = digest.hexdigest()[:_DIGITS]

    def __enter__(self) -> Gathered:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def leave_out(self, keys: Iterable[str]) -> None:
        """Forget rows that are done."""
        self._base.executemany("DELETE FROM rows WHERE key = ?", ((key,) for key in keys))
        (self.count,) = self._base.execute("SELECT count(*) FROM rows").fetchone()

    def lines(self) -> Iterator[str]:
        """Their JSON, those of one picture together, pictures in the order of their first rows."""
        for (line,) in self._base.execute("SELECT line FROM rows ORDER BY first, seq"):
            yield line

    def sample(self, count: int) -> list[PlannedRow]:
        """So many pictures, evenly spread, with all their rows of up to four; all where there are fewer."""
        (pictures,) = self._base.execute("SELECT count(DISTINCT first) FROM rows").fetchone()
        step = max(1, pictures // count)
        taken = self._base.execute(
            "SELECT line FROM (SELECT line, dense_rank() OVER (ORDER BY first) - 1 AS picture,"
            " row_number() OVER (PARTITION BY first ORDER BY seq) AS place, first, seq FROM rows)"
            " WHERE picture % ? = ? AND place <= 4 ORDER BY first, seq LIMIT ?",
            [step, step // 2, 4 * count],
        )
        return [PlannedRow(**json.loads(line)) for (line,) in taken]

    def write(self, folder: Path) -> Plan:
        """Make the plan's folder, whole or not at all."""
        size = min(_MOST, max(_LEAST, self.count // _PARTS))
        scratch = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        parts: dict[str, int] = {}
        lines = self.lines()
        while part := list(islice(lines, size)):
            name = f"{self.fingerprint[:8]}-{len(parts):06d}"
            (scratch / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in part), "utf-8")
            parts[name] = len(part)
        value = {"fingerprint": self.fingerprint, "parts": parts}
        write_whole(scratch / "plan.json", json.dumps(value, indent=0).encode())
        scratch.rename(folder)
        return Plan(folder, self.fingerprint, parts)

    def _add(self, entry: Entry) -> str:
        value = entry.value
        name = entry.picture
        asked = {key: one for key, one in value.items() if key not in _ASIDE} if isinstance(value, dict) else value
        text = json.dumps([name or entry.source, asked, entry.error], sort_keys=True)
        content = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
        (same,) = self._base.execute(
            "INSERT INTO same VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count", [content]
        ).fetchone()
        key = content if same == 1 else hashlib.sha256(f"{content} {same}".encode()).hexdigest()[:_DIGITS]
        (first,) = self._base.execute(
            "INSERT INTO pictures VALUES (?, ?) ON CONFLICT DO UPDATE SET first = first RETURNING first",
            [(name or f"{entry.source}#{entry.place}").encode("utf-8", "replace").decode(), self.count],
        ).fetchone()
        row = {"key": key, "source": entry.source, "place": entry.place, "entry": value}
        row |= {} if entry.error is None else {"error": entry.error}
        self._base.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", [self.count, key, first, json.dumps(row)])
        self.count += 1
        return key
