"""A worker: a model on one device, held by an actor of Ray's, to which parts are sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.files.addresses import shown
from gar_edge.runtime.jobs.run import Tally
from gar_edge.runtime.label.part import PartDone, work_on
from gar_edge.runtime.label.task import Task

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_PAUSE = 1.0  # seconds between two reports of one part
Batch = dict[str, Any]


class Worker:
    """What Ray Data calls with the names of parts, in several threads, so that two parts share the engine's runs."""

    def __init__(self, task: Task, counter: ActorHandle[Any]) -> None:
        self._task = task
        self._counter = counter
        self._fault: str | None = None
        try:
            self._gar = task.load()
        except Exception as error:  # told with the first part: Ray would load again and again
            self._fault = _told(error)

    def __call__(self, batch: Batch) -> Batch:
        """What came of each part; `fault` where the run must end."""
        done = [self._work(str(name)) for name in batch["part"]]
        return {name: np.array([one[name] for one in done]) for name in done[0]}

    def _work(self, name: str) -> dict[str, Any]:
        nothing = PartDone(name, 0, 0, 0, 0)
        if self._fault is not None:
            return vars(nothing) | {"fault": self._fault}
        try:
            return vars(work_on(name, self._task, self._gar, _Reports(name, self._counter)) or nothing) | {"fault": ""}
        except Exception as error:
            return vars(nothing) | {"fault": _told(error)}


class _Reports:
    """Tells the counter how far a part is, once in a while."""

    def __init__(self, name: str, counter: ActorHandle[Any]) -> None:
        self._name = name
        self._counter = counter
        self._last = time.monotonic()

    def __call__(self, tally: Tally) -> None:
        if time.monotonic() - self._last >= _PAUSE:
            self._last = time.monotonic()
            self._counter.note.remote(self._name, tally.done, tally.failed)


class Counter:
    """How far the parts are that are being worked on; an actor that all workers tell."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[int, int]] = {}

    def note(self, name: str, done: int, failed: int) -> None:
        """So many rows of a part are answered, so many of them with errors."""
        self._parts[name] = done, failed

    def forget(self, names: list[str]) -> tuple[int, int]:
        """Rows and errors of parts under way, without these, which are finished."""
        for name in names:
            self._parts.pop(name, None)
        return sum(done for done, _ in self._parts.values()), sum(failed for _, failed in self._parts.values())


def _told(error: Exception) -> str:
    text = str(error) if isinstance(error, (GarError, OSError)) else f"{type(error).__name__}: {error}"
    return shown(" ".join(text.split()))
