"""A conversation about the regions of one picture."""

from __future__ import annotations

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.generate.answer import Answer, StopWatch
from gar_edge.runtime.generate.prompt import Turn
from gar_edge.runtime.generate.request import OpenPicture, Regions, Request, Wanted
from gar_edge.runtime.generate.scheduler import Scheduler
from gar_edge.runtime.generate.stream import AnswerStream


class Chat:
    """Questions that build on one another.

    The first must name every region; later ones name those they are about. Each prompt is the whole conversation in
    the model's own chat template, and what the KV cache holds of it is not computed again.
    """

    def __init__(
        self, scheduler: Scheduler, picture: OpenPicture, regions: Regions, *, wanted: Wanted, opening_ms: float
    ) -> None:
        self._scheduler = scheduler
        self._picture = picture
        self._regions = regions
        self._wanted = wanted
        self._opening_ms = opening_ms
        self._first: str | None = None
        self._turns: list[Turn] = []
        self._latest: AnswerStream | None = None
        self._before: tuple[str | None, list[Turn], AnswerStream | None] = (None, [], None)  # the latest question

    def ask(self, question: str) -> Answer:
        """Ask the next question; `GarPromptError` where it cannot be asked, and the conversation stays as it was."""
        return self._submitted(question, streamed=False).finish()

    def stream(self, question: str) -> AnswerStream:
        """Ask, and read the answer piece by piece. One that is still in the making is finished first."""
        return self._submitted(question, streamed=True)

    def _submitted(self, question: str, *, streamed: bool) -> AnswerStream:
        watch, pipeline, numbers = StopWatch(), self._scheduler.pipeline, self._regions.numbers
        said, turns = self._said(), self._turns
        if said is not None:
            turns = [*turns, Turn(said, question)]
        first = question if self._first is None else self._first
        pipeline.prompts.check(first, numbers, turns[-1:])
        ids = pipeline.prompts.build(first, numbers, len(self._picture.tiles), turns)
        request = Request.of(pipeline, self._picture, self._regions, ids, self._wanted)
        answering = self._scheduler.submit(request, watch=watch, opening_ms=self._opening_ms, streamed=streamed)
        self._before = self._first, self._turns, self._latest
        self._first, self._turns, self._opening_ms = first, turns, 0.0
        self._latest = AnswerStream(answering)
        return self._latest

    def _said(self) -> str | None:
        """The latest answer's text; None before the first. A question whose answer failed was never asked."""
        if self._latest is None:
            return None
        try:
            return self._latest.said()
        except GarError:  # whoever asked was told
            self._first, self._turns, self._latest = self._before
            return self._said()
