"""Many requests of one caller, answered side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.generate.answer import Answer, StopWatch
from gar_edge.runtime.generate.answering import Answering
from gar_edge.runtime.generate.request import Request
from gar_edge.runtime.generate.scheduler import Scheduler


@dataclass(frozen=True)
class Asked:
    """A request, the watch that runs since it was asked, and what its picture took before, in milliseconds."""

    request: Request
    watch: StopWatch = field(default_factory=StopWatch)
    opening_ms: float = 0.0


def answer_side_by_side(
    scheduler: Scheduler,
    requests: Iterable[Asked],
    *,
    refused: Callable[[int, GarPromptError], None] | None = None,
) -> Iterator[tuple[int, Answer]]:
    """Each answer with the number of its request, as soon as it is whole; `requests` is read as places become free.

    Raises what an answer failed with; where `refused` is given, an answer that its own structure made impossible is
    told to it instead, and the others go on. Whoever stops iterating cancels those in the making.
    """
    ended: SimpleQueue[int] = SimpleQueue()
    making: dict[int, Answering] = {}
    source = enumerate(requests)

    def submit() -> bool:
        following = next(source, None)
        if following is None:
            return False
        number, asked = following
        making[number] = scheduler.submit(
            asked.request,
            watch=asked.watch,
            opening_ms=asked.opening_ms,
            patient=True,
            when_ended=lambda _: ended.put(number),
        )
        return True

    try:
        while True:
            while len(making) < 2 * scheduler.places and submit():  # the next are prepared while some are answered
                pass
            if not making:
                return
            number = ended.get()
            one = making.pop(number)
            try:
                answer = one.result()
            except GarPromptError as error:
                if refused is None:
                    raise
                refused(number, error)
            else:
                yield number, answer
    finally:
        for one in making.values():
            one.cancel()
