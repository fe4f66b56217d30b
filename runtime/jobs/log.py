"""The file of answers of a run of jobs: one JSON line each, whole or not there, whatever moment the run is killed at.

A line goes out in one write at the file's end and is waited for (fsync) before the next job begins. A kill can thus
leave at most the beginning of one line, the last, which the next run cuts off. One run at a time holds the file.

A pipe or device (`/dev/stdout`) is written through: it keeps nothing that another run could go on from.
"""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.files.locks import lock

_OWN = re.compile(r"/dev/(?P<name>stdout|stderr)|/(?:dev|proc/self)/fd/(?P<number>\d+)")
KEY = "job"  # first field of each line
_BEGINNING = json.dumps({KEY: ""})[:-2].encode()  # {"job": "


class JobLog:
    """A context manager; `done` are the keys of the lines that are there, `model` the one that wrote them."""

    def __init__(self, path: Path) -> None:
        """`GarPromptError` for a file that holds anything but such lines, one that another run holds, and a pipe that
        nobody reads. `OSError` where it cannot be opened.
        """
        self._path = path
        self.done: dict[str, bool] = {}  # key -> whether it was answered
        self.model: str | None = None
        self._kept = not path.exists() or path.is_file() or path.is_dir()
        self._file = self._open()
        try:
            if self._kept:
                lock(self._file, self._path, "another run is writing to it; wait for that, or end it")
                self._resume()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> JobLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def write(self, key: str, fields: dict[str, Any]) -> None:
        """Add a job's line; it is on the disk when this returns. `OSError` where the disk is full or gone."""
        text = json.dumps({KEY: key, **fields}, ensure_ascii=False) + "\n"
        line = memoryview(text.encode("utf-8", "backslashreplace"))  # half a surrogate pair stays JSON's escape
        try:
            while line:
                line = line[os.write(self._file, line) :]
            if self._kept:
                os.fsync(self._file)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        self.done[key] = "error" not in fields

    def _open(self) -> int:
        if self._kept:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
        own = _OWN.fullmatch(str(self._path))
        if own:  # open already; a socket could not be opened by its name
            return os.dup(int(own["number"] or {"stdout": 1, "stderr": 2}[own["name"]]))
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)  # else a pipe without a reader is waited for
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            raise GarPromptError(f"{self._path}: nobody reads from it; start the reader first") from None
        os.set_blocking(file, True)
        return file

    def _resume(self) -> None:
        """Read the lines that are there, and cut off the beginning of one that a kill left behind."""
        whole = 0
        with open(self._file, "rb", closefd=False) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    torn = line.rstrip(b"\0")  # what some file systems leave when the power fails
                    if not (torn.startswith(_BEGINNING) or _BEGINNING.startswith(torn)):
                        raise self._foreign(number)
                    break
                self._note(number, line)
                whole += len(line)
        if whole < os.fstat(self._file).st_size:
            os.ftruncate(self._file, whole)
            os.fsync(self._file)

    def _note(self, number: int, line: bytes) -> None:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            raise self._foreign(number) from None
        if not isinstance(fields, dict) or not isinstance(fields.get(KEY), str):
            raise self._foreign(number)
        self.done[fields[KEY]] = "error" not in fields
        self.model = self.model or fields.get("model")

    def _foreign(self, number: int) -> GarPromptError:
        return GarPromptError(f"{self._path}: line {number} is no job's answer; give a file of its own to --jsonl")
