"""Answers about the newest frame of a stream, from a thread of their own."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gar_edge.runtime.asking import Askable
from gar_edge.runtime.clip import Clip, ClipRegion
from gar_edge.runtime.errors import GarError
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.images.loading import ImageLike
from gar_edge.runtime.regions.kinds import RegionLike

DEFAULT = Options(max_new_tokens=128, live=True)


@dataclass(frozen=True)
class Frame:
    """A picture, or a clip, and what is asked of it: `regions` by number, described where there is no question.

    tag: whatever the caller needs to know the frame again, such as its time.
    """

    image: ImageLike | Clip
    regions: Mapping[int, RegionLike] | Mapping[int, ClipRegion]
    question: str | None = None
    tag: Any = None


class LiveAnswers:
    """A place for one waiting frame, and a thread that answers.

    A frame that is offered while another waits replaces it: answers fall behind by one frame at most, however slow
    they are. With `Options.live`, as by default, they go before all that waits. `answered` is called in the thread,
    with the frame and its answer, or the `GarError` that it met.

    dropped: frames that were replaced before anybody looked at them. late: answers that came when a newer frame was
    waiting already, or more than `late_after` seconds after their frame was offered; late_in_a_row: how many of the
    last ones, this one included.
    """

    def __init__(
        self,
        gar: Gar,
        answered: Callable[[Frame, Answer | GarError], None],
        *,
        options: Options = DEFAULT,
        max_tiles: int | None = None,
        late_after: float | None = None,
    ) -> None:
        self._gar = gar
        self._max_tiles = max_tiles
        self._answered = answered
        self._cancel = threading.Event()
        self._options = dataclasses.replace(options, cancel=self._cancel)
        self._late_after = math.inf if late_after is None else late_after
        self._waiting: Frame | None = None
        self._offered = 0.0  # when the frame that waits came
        self._busy = False
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self.dropped = self.late = self.late_in_a_row = 0
        self._thread = threading.Thread(target=self._work, name="gar-edge live answers", daemon=True)
        self._thread.start()

    def __enter__(self) -> LiveAnswers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def offer(self, frame: Frame) -> None:
        """Leave a frame for the thread, at once. Raises what `answered` raised, for then nobody answers any more."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            if self._cancel.is_set():
                return  # closed: nobody will look at it
            self.dropped += self._waiting is not None
            self._waiting, self._offered = frame, time.monotonic()
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until the frames offered so far are answered, or dropped. Raises what `answered` raised."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._failure is not None or self._cancel.is_set() or not (self._busy or self._waiting)
            )
            if self._failure is not None:
                raise self._failure

    def close(self, timeout: float | None = None) -> bool:
        """Cancel the answer in the making and end the thread; False where it did not within so many seconds."""
        self._cancel.set()
        with self._changed:
            self._waiting = None
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while (following := self._next()) is not None:
                frame, offered = following
                outcome = self._answer(frame)
                with self._changed:
                    behind = self._waiting is not None or time.monotonic() - offered > self._late_after
                    self.late += behind
                    self.late_in_a_row = self.late_in_a_row + 1 if behind else 0
                if not self._cancel.is_set():
                    self._answered(frame, outcome)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _next(self) -> tuple[Frame, float] | None:
        """The waiting frame, waited for, and when it came; None at the end."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting is not None or self._cancel.is_set())
            frame, self._waiting = self._waiting, None
            self._busy = frame is not None
            return None if frame is None or self._cancel.is_set() else (frame, self._offered)

    def _answer(self, frame: Frame) -> Answer | GarError:
        try:
            asked: Askable[Any] = (
                frame.image if isinstance(frame.image, Clip) else self._gar.open(frame.image, max_tiles=self._max_tiles)
            )
            return asked.stream(frame.question, frame.regions, options=self._options).finish()
        except GarError as error:
            return error
