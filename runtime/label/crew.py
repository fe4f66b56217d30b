"""The workers of a run: Ray starts an actor for each, here they are given parts, and replaced where they die."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.label.cluster import Share, room
from gar_edge.runtime.label.task import Task
from gar_edge.runtime.label.worker import Counts, Report, Worker

if TYPE_CHECKING:
    from ray import ObjectRef

_LOOK = 0.5  # seconds between two looks at how far the workers are
_AT_ONCE = 2  # parts that a worker has under way: the last answers of one share runs with the first of the next
_STILLBORN = 3  # workers in a row that die before they are there
_SHOWN = 300  # characters of an error that is not ours
_PARTING = 5.0  # seconds that the calls of workers who were just ended have to end in


@dataclass(eq=False)
class _Member:
    """actor: Ray's handle. there: it has begun. asked: it has not yet said how far it is. parts: under way."""

    actor: Any
    there: bool
    asked: bool
    parts: set[str]


class Crew:
    """A context manager; Ray must be there. It ends with its workers ended.

    A worker's place is taken by another, somewhere, when its process or its machine is gone; its parts go to those that
    are there. One that finds no room waits for it, and the others go on.
    """

    def __init__(self, task: Task, share: Share, size: int) -> None:
        import ray

        self._share = share
        self._class: Any = ray.remote(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            memory=share.memory,
            max_restarts=0,
            max_concurrency=_AT_ONCE + 1,  # and the question how far it is
            scheduling_strategy="SPREAD",
        )(Worker)
        self._task = ray.put(task)
        self._ended: SimpleQueue[tuple[_Member, str | None, Future[Any]]] = SimpleQueue()
        self._open = 0  # calls that have not ended
        self._looked = time.monotonic()
        self._stillborn = 0
        self._members: list[_Member] = []
        self._counts: dict[str, Counts] = {}
        for _ in range(size):
            self._hire()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        for member in self._members:
            ray.kill(member.actor)
        # A call that ended while Ray shuts down would be told on a thread of Ray's that is going away.
        end = time.monotonic() + _PARTING
        with suppress(Empty):
            while self._open:
                self._ended.get(timeout=max(end - time.monotonic(), 0))
                self._open -= 1

    @property
    def under_way(self) -> Counts:
        """Of the parts that are being worked on, as their workers last said."""
        counts = self._counts.values()
        return Counts(sum(one.rows for one in counts), sum(one.failed for one in counts))

    def work(self, names: Iterable[str]) -> Iterator[Report | None]:
        """Do these parts: what each came to, in the order in which they end, and None whenever a while has passed.

        `GarBackendError` where workers cannot be started, or no machine is left that has room for one.
        """
        waiting = deque(names)
        while waiting or any(member.parts for member in self._members):
            for member in self._members:
                while member.there and waiting and len(member.parts) < _AT_ONCE:
                    name = waiting.popleft()
                    member.parts.add(name)
                    self._call(member, name, member.actor.work.remote(name))
            try:
                report = self._result(*self._ended.get(timeout=_LOOK), waiting)
            except Empty:
                report = None
            if report is not None:
                yield report
            if time.monotonic() - self._looked >= _LOOK:
                self._looked = time.monotonic()
                for member in self._members:
                    self._ask(member)
                yield None

    def _call(self, member: _Member, name: str | None, answer: ObjectRef[Any]) -> None:
        """Wait for it without `ray.wait`, which now and then makes a SystemError of Ctrl-C (2.60)."""
        self._open += 1
        answer.future().add_done_callback(lambda ended: self._ended.put((member, name, ended)))

    def _result(self, member: _Member, name: str | None, ended: Future[Any], waiting: deque[str]) -> Report | None:
        """What a part came to, if that was the call; a lost worker's parts are put back."""
        import ray

        self._open -= 1
        if member not in self._members:  # replaced already
            return None
        try:
            answer = ended.result()
        except ray.exceptions.RayError as error:
            self._replace(member, error, waiting)
            return None
        member.there, self._stillborn = True, 0
        if name is None:
            member.asked = False
            self._counts |= {part: counts for part, counts in answer.items() if part in member.parts}
            return None
        member.parts.discard(name)
        self._counts.pop(name, None)
        return Report(*answer)

    def _hire(self) -> None:
        member = _Member(self._class.remote(self._task), there=False, asked=False, parts=set())
        self._members.append(member)
        self._ask(member)

    def _ask(self, member: _Member) -> None:
        if not member.asked:
            member.asked = True
            self._call(member, None, member.actor.how_far.remote())

    def _replace(self, member: _Member, error: Exception, waiting: deque[str]) -> None:
        import ray

        ray.kill(member.actor)  # it may live, out of reach
        self._members.remove(member)
        waiting.extendleft(sorted(member.parts, reverse=True))
        for name in member.parts:
            self._counts.pop(name, None)
        self._stillborn += not member.there
        if self._stillborn == _STILLBORN:
            raise GarBackendError(f"workers cannot be started: {_told(error)}")
        if room(self._share) < 1 and not any(one.there for one in self._members):
            raise GarBackendError("the machines that had room for workers are gone; run again to go on")
        self._hire()


def _told(error: Exception) -> str:
    """The last line, where Ray quotes the worker's own error."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip() if lines else ''}"[:_SHOWN]
