"""The scheduler's answers in the event loop: pieces of text, answers and failures as they come.

The scheduler's thread tells; the loop is woken once for all that was told since it last looked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.answering import Answering, Piece
from gar_edge.runtime.generate.scheduler import Scheduler
from gar_edge.runtime.generate.side_by_side import Asked


@dataclass(frozen=True)
class Said:
    """Text that is certain, of the answer with this index."""

    index: int
    text: str


@dataclass(frozen=True)
class Done:
    """An answer, or why there is none."""

    index: int
    answer: Answer | None
    failure: BaseException | None = None


class Desk:
    """Hands questions to the scheduler; knows all that are in the making, to end them when the server stops."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._making: set[Making] = set()

    def submit(self, asked: Sequence[Asked], *, streamed: bool) -> Making:
        """Have questions answered side by side; `GarBusyError` where too many wait. Close what comes back."""
        making = Making(self._making.discard)
        self._making.add(making)
        try:
            for one in asked:
                making.add(self._scheduler, one, streamed=streamed)
        except BaseException:
            making.close()
            raise
        return making

    def cut_off(self) -> None:
        """End all answers in the making as they are."""
        for making in list(self._making):
            making.cancel()


class Making:
    """Answers in the making, for one caller in the loop."""

    def __init__(self, when_closed: Callable[[Making], None]) -> None:
        self._answerings: list[Answering] = []
        self._mail = _Mail()
        self._when_closed = when_closed

    def add(self, scheduler: Scheduler, asked: Asked, *, streamed: bool) -> None:
        """One more question."""
        index = len(self._answerings)
        answering = scheduler.submit(
            asked.request,
            watch=asked.watch,
            opening_ms=asked.opening_ms,
            streamed=streamed,
            when_said=partial(self._mail.say, index) if streamed else _nothing,
            when_ended=partial(self._mail.put, index),
        )
        self._answerings.append(answering)

    async def events(self) -> AsyncIterator[Said | Done]:
        """What comes of them until all are done."""
        left = len(self._answerings)
        while left:
            for index, item in await self._mail.take():
                if isinstance(item, str):
                    yield Said(index, item)
                else:
                    left -= 1
                    yield _done(index, item)

    def cancel(self) -> None:
        """End them as they are; their events come still."""
        for answering in self._answerings:
            answering.cancel()

    def close(self) -> None:
        """Nobody waits any more."""
        self.cancel()
        self._when_closed(self)


def _done(index: int, answering: Answering) -> Done:
    try:
        return Done(index, answering.result())
    except Exception as error:  # also what nobody expected: it belongs to this answer alone
        return Done(index, None, error)


def _nothing(piece: Piece) -> None:
    """Nobody reads along."""


class _Mail:
    """From the scheduler's thread to the loop's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._letters: deque[tuple[int, str | Answering]] = deque()
        self._there = asyncio.Event()

    def put(self, index: int, item: str | Answering) -> None:
        """Of the scheduler's thread."""
        self._letters.append((index, item))
        if len(self._letters) == 1:  # else the loop has been woken, and has not looked yet
            try:
                self._loop.call_soon_threadsafe(self._there.set)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def say(self, index: int, piece: Piece) -> None:
        """Of the scheduler's thread."""
        self.put(index, piece[0])

    async def take(self) -> list[tuple[int, str | Answering]]:
        """All that has come, at least one."""
        while not self._letters:
            self._there.clear()
            if not self._letters:
                await self._there.wait()
        letters = []
        while self._letters:
            letters.append(self._letters.popleft())
        return letters
