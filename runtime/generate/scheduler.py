"""The one loop that owns the engine: requests of all threads, answered side by side.

Each turn of the loop lets waiting requests in, does one piece of work on prompts (a run of the encoder, or a chunk of
one prompt) and one step of all answers that are being said. So an answer never waits for more than one such piece
between two of its tokens, and what a step reads, the weights, it reads for all.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from bisect import insort
from collections.abc import Callable

from gar_edge.runtime.errors import GarBackendError, GarBusyError
from gar_edge.runtime.generate.answer import StopWatch
from gar_edge.runtime.generate.answering import Answering, Piece
from gar_edge.runtime.generate.kept import KeptWork
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.generate.prompt_work import PromptWork
from gar_edge.runtime.generate.request import Request
from gar_edge.runtime.generate.speaking import Speakers

CACHE_SHARE = 0.5  # of the free memory goes to caches at most: activations and other programs need some too


class Scheduler:
    """Answers requests from any thread; first come, first served, but for those that are live.

    places: most answers in the making, where the engine was not built for fewer. queue: most requests that wait for a
    place.
    """

    def __init__(self, pipeline: Pipeline, kept: KeptWork, *, places: int, queue: int) -> None:
        self.places = min(places, pipeline.decoder.side_by_side or places)
        self.kept = kept
        self._queue = queue
        self._pipeline: Pipeline | None = pipeline
        self._prompts = PromptWork(pipeline, kept)
        self._speakers = Speakers(pipeline, kept, self.places)
        self._waiting: list[Answering] = []  # those that are live first, then as they came
        self._taken: list[Answering] = []  # all that have not ended, wherever they are
        self._limit = 0  # bytes that caches of answers in the making may take, 0 where nobody knows
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        # The engine must not be running while Python ends.
        close = weakref.WeakMethod(self.close)
        at_exit = atexit.register(lambda: (alive := close()) is not None and alive())
        weakref.finalize(self, atexit.unregister, at_exit).atexit = False

    @property
    def pipeline(self) -> Pipeline:
        """`GarBackendError` once the scheduler is closed."""
        if self._pipeline is None:
            raise _closed()
        return self._pipeline

    def submit(
        self,
        request: Request,
        *,
        watch: StopWatch,
        opening_ms: float = 0.0,
        patient: bool = False,
        streamed: bool = False,
        when_said: Callable[[Piece], None] | None = None,
        when_ended: Callable[[Answering], None] | None = None,
    ) -> Answering:
        """Take a request; its answer is made in the scheduler's own thread.

        patient: wait where the queue is full, which otherwise raises `GarBusyError`. streamed: the answer's pieces are
        read. when_said: told each piece, which is not queued then; when_ended: told that the answer is there, or why
        not. Both are called in that thread, and must be quick.
        """
        answering = Answering(
            self.pipeline,
            request,
            watch,
            opening_ms,
            streamed=streamed,
            when_said=when_said,
            when_ended=when_ended,
        )
        with self._changed:
            if patient:
                self._changed.wait_for(lambda: len(self._waiting) < self._queue or self._pipeline is None)
            if self._pipeline is None:
                raise _closed()
            if len(self._waiting) >= self._queue:
                raise GarBusyError(
                    f"{len(self._waiting)} requests wait already; ask again later, or load with a longer queue"
                )
            if self._thread is None:
                thread = threading.Thread(target=self._loop, name="gar-edge engine", daemon=True)
                thread.start()  # it waits for the lock that is held here
                self._thread = thread
            insort(self._waiting, answering, key=_rank)
            self._taken.append(answering)
        return answering

    def counts(self) -> tuple[int, int]:
        """How many requests wait for a place, and how many answers are in the making."""
        with self._changed:
            return len(self._waiting), sum(not one.ended.is_set() for one in self._taken) - len(self._waiting)

    def fitting(self, request: Request) -> tuple[int, int]:
        """How many such requests the free memory lets be answered side by side, and bytes free (0: nobody knows)."""
        free = self.pipeline.backend.free_memory()
        each = self.pipeline.decoder.planned_bytes(request.positions)
        return (max(1, int(free * CACHE_SHARE) // each) if free else self.places), free

    def close(self) -> None:
        """End the loop and give up the engine; answers in the making end with `GarBackendError`."""
        with self._changed:
            self._pipeline = None
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self.kept.close()
        self.__dict__.pop("_prompts", None)  # and with them the graphs
        self.__dict__.pop("_speakers", None)

    def _loop(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # none is expected here, and nobody shall wait for ever where one comes
            self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        """End every request with an error, and begin anew with the next."""
        with self._changed:
            for one in self._taken:
                if not one.ended.is_set():
                    one.fail(error)
            self._waiting, self._taken = [], []
            self.kept.nothing_in_use()
            self._prompts.all, self._speakers = [], Speakers(self._prompts.pipeline, self.kept, self.places)
            self._thread = None
            self._changed.notify_all()

    def _turn(self) -> bool:
        """Whether there was anything to do; if not, the thread ends with this call."""
        prompts, speakers = self._prompts, self._speakers
        prompts.end_stopped()  # first of all: what they leave is there for those who come in
        speakers.end_stopped()
        with self._changed:
            self._taken = [one for one in self._taken if not one.ended.is_set()]
            self._end_waiting()
            if self._pipeline is None:
                for left in (*self._waiting, *prompts.all, *speakers.all):
                    left.fail(_closed())
                self._waiting, prompts.all, speakers.all = [], [], []
            while (one := self._next()) is not None:
                prompts.begin(one)
                self.kept.use(one.planned_bytes)
            if not prompts.all and not speakers.all:
                self._thread = None
                return False
        if (begun := prompts.advance()) is not None:
            speakers.add(begun)
        speakers.step()
        return True

    def _end_waiting(self) -> None:
        for one in list(self._waiting):
            if (reason := one.stop_reason()) is not None:
                self._waiting.remove(one)
                one.end(reason)
                self._changed.notify_all()  # there is room in the queue

    def _next(self) -> Answering | None:
        """The next request that waits, if there is a place and memory for it."""
        active = [*self._prompts.all, *self._speakers.all]
        if not self._waiting or len(active) >= self.places:
            return None
        one = self._waiting[0]
        planned = self.pipeline.decoder.planned_bytes(one.request.positions)
        if not active:
            free = self.pipeline.backend.free_memory()
            self._limit = int((free + self.kept.bytes) * CACHE_SHARE) if free else 0
        elif self._limit and planned + sum(other.planned_bytes for other in active) > self._limit:
            return None
        one.planned_bytes = planned
        self._changed.notify_all()
        return self._waiting.pop(0)


def _rank(answering: Answering) -> bool:
    return not answering.live


def _closed() -> GarBackendError:
    return GarBackendError("this Gar was closed; load it again")
