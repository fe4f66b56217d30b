"""A worker: a model on one device, held by an actor of Ray's, to which parts are sent."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.files.addresses import shown
from gar_edge.runtime.jobs.run import Tally
from gar_edge.runtime.label.part import work_on
from gar_edge.runtime.label.task import Task


class Counts(NamedTuple):
    """Rows of a part that are answered, and how many of these with errors."""

    rows: int
    failed: int


class Report(NamedTuple):
    """What a part came to. tokens: said. fault: why the run must end, empty where it need not."""

    name: str
    failed: int
    tokens: int
    fault: str = ""


class Worker:
    """Called with the names of parts, in several threads, so that two parts share the engine's runs."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._under_way: dict[str, Counts] = {}
        self._fault: str | None = None
        try:
            self._gar = task.load()
        except Exception as error:  # told with the first part: it would meet each that takes this one's place
            self._fault = _told(error)

    def how_far(self) -> dict[str, Counts]:
        """The parts that are being worked on."""
        return dict(self._under_way)

    def work(self, name: str) -> Report:
        """Finish a part."""
        if self._fault is not None:
            return Report(name, 0, 0, self._fault)
        try:
            done = work_on(name, self._task, self._gar, partial(self._note, name))
        except Exception as error:
            return Report(name, 0, 0, _told(error))
        finally:
            self._under_way.pop(name, None)
        return Report(name, done.failed, done.tokens) if done is not None else Report(name, 0, 0)

    def _note(self, name: str, tally: Tally) -> None:
        self._under_way[name] = Counts(tally.done, tally.failed)


def _told(error: Exception) -> str:
    text = str(error) if isinstance(error, (GarError, OSError)) else f"{type(error).__name__}: {error}"
    return shown(" ".join(text.split()))
