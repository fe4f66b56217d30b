"""The folder of an output: finished rows as Parquet, those on their way in journals.

| | |
|---|---|
| `settings.json` | what was asked, by which model |
| `plan/` | the work in parts (`label.plan`) |
| `journal/PART.ATTEMPT.jsonl` | rows that an attempt at a part has answered, each on the disk before the next begins |
| `journal/PART.begun` | rows that are answered one by one, since workers died at the part |
| `rows/PART.parquet` | a part that is finished |
| `summary.json` | of the last run |

Exactly once: a part's rows are the plan's, and its file's name is the part's, so that any number of attempts, even at
the same time, leave one file with these rows. An attempt takes what the journals before it have answered. The file is
written aside and renamed; journals are removed after that.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.files.atomic import renamed
from gar_edge.runtime.files.locks import lock
from gar_edge.runtime.jobs.log import KEY, JobLog
from gar_edge.runtime.label.plan import Plan, PlannedRow, rows_in

_OURS = {"settings.json", "plan", "journal", "rows", "summary.json", "ray.log", "lock", ".plan.partial"}
_SOME = 65536  # keys in memory at a time


@dataclass(frozen=True)
class Output:
    """A folder that holds rows, or will."""

    folder: Path

    @property
    def plan(self) -> Path:
        return self.folder / "plan"

    @property
    def rows(self) -> Path:
        return self.folder / "rows"

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder where there is none, and let no other run write to it.

        `GarPromptError` where one does, or where the folder holds something else.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(one.name for one in self.folder.iterdir() if one.name not in _OURS)
        if foreign and not (self.folder / "settings.json").exists():
            raise GarPromptError(
                f"{self.folder}: holds {foreign[0]}, which is no output; give --out a folder of its own"
            )
        self.rows.mkdir(exist_ok=True)
        self.journal.mkdir(exist_ok=True)
        path = self.folder / "lock"
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock(file, path, "another run labels into this folder; wait for that, or end it")
            yield
        finally:
            os.close(file)

    def part(self, name: str) -> Path:
        """The file of a finished part."""
        return self.rows / f"{name}.parquet"

    def finished(self) -> list[Path]:
        """The files of all finished parts, those of earlier plans too."""
        return sorted(self.rows.glob("*.parquet"))

    def keys(self) -> Iterator[str]:
        """Of all finished rows."""
        import pyarrow.parquet as pq

        for path in self.finished():
            for batch in pq.ParquetFile(path).iter_batches(_SOME, columns=["key"]):
                yield from batch.column(0).to_pylist()

    def journaled(self, name: str) -> dict[str, dict[str, Any]]:
        """What attempts at a part have answered so far, by key; of two answers the first."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(self.journal.glob(f"{name}.*.jsonl")):
            for key, fields in _journal(path):
                found.setdefault(key, fields)
        return found

    def open_journal(self, name: str) -> JobLog:
        """A new attempt's own."""
        return JobLog(self.journal / f"{name}.{uuid4().hex}.jsonl")

    def fruitless(self, name: str) -> int:
        """How many attempts at a part ended before their first answer."""
        return sum(next(_journal(path), None) is None for path in self.journal.glob(f"{name}.*.jsonl"))

    def begin(self, name: str, key: str) -> None:
        """Note that a row is being answered alone."""
        with (self.journal / f"{name}.begun").open("a", encoding="ascii") as file:
            file.write(f"{key}\n")
            file.flush()
            os.fsync(file.fileno())

    def begun(self, name: str) -> set[str]:
        """The rows that were."""
        path = self.journal / f"{name}.begun"
        return set(path.read_text("ascii").split()) if path.exists() else set()

    def finish(self, name: str, planned: list[PlannedRow], answers: dict[str, dict[str, Any]]) -> None:
        """Write a part's file, of the rows that have answers, and remove its journals."""
        import pyarrow.parquet as pq

        from gar_edge.runtime.label.table import table_of

        with renamed(self.part(name)) as scratch:
            pq.write_table(table_of(planned, answers), scratch)
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
        self.drop_journals(name)

    def drop_journals(self, name: str) -> None:
        for path in self.journal.glob(f"{name}.*"):
            with suppress(FileNotFoundError):  # another attempt's doing
                path.unlink()

    def retire(self, plan: Plan) -> None:
        """Give up a plan whose input has changed; what its unfinished parts have answered becomes rows first."""
        for name in plan.parts:
            answers = {} if self.part(name).exists() else self.journaled(name)
            if answers:
                self.finish(
                    name, [row for row in rows_in(plan.folder / f"{name}.jsonl") if row.key in answers], answers
                )
            self.drop_journals(name)
        shutil.rmtree(self.plan)


def _journal(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The whole lines of a journal, which may still be written to."""
    with suppress(FileNotFoundError), path.open("rb") as lines:
        for line in lines:
            try:
                fields = json.loads(line)
                yield fields.pop(KEY), fields
            except (ValueError, KeyError, AttributeError):  # the beginning of one, cut off by a kill
                return
