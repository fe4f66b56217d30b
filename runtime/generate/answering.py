"""One request on its way through the engine: plain state, changed by the scheduler's thread alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue
from threading import Event
from typing import Any

from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.generate.answer import Answer, FinishReason, Reuse, StopWatch
from gar_edge.runtime.generate.branches import Branches
from gar_edge.runtime.generate.choosing import Choice, choose
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.generate.request import Request, TileKey
from gar_edge.runtime.generate.sampling import Sampler
from gar_edge.runtime.generate.transcript import Transcript
from gar_edge.runtime.model.sequence import TokenSequence

Piece = tuple[str, int]  # text that is certain by now, and how many tokens the answer had then


class Answering:
    """What has been computed for a request, and what it has said.

    Its caller reads `pieces` (None is the end), waits for `ended`, and then finds `answer` or `failure`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        request: Request,
        watch: StopWatch,
        opening_ms: float,
        *,
        streamed: bool = False,
        when_said: Callable[[Piece], None] | None = None,
        when_ended: Callable[[Answering], None] | None = None,
    ) -> None:
        """streamed: whether somebody reads its pieces. when_said: takes them instead of the queue. opening_ms: what
        preprocessing the picture took, where this is the first request about it.
        """
        prompt, options = pipeline.manifest.prompt, request.options
        self.live = options.live
        self.watch = watch
        self.pieces: SimpleQueue[Piece | None] = SimpleQueue()
        self.ended = Event()
        self.answer: Answer | None = None
        self.failure: BaseException | None = None
        self.model = pipeline.manifest.name
        self._read: Callable[[str], Any] | None = None  # what makes a value of a structured answer that is whole
        self._opening_ms = opening_ms
        self._when_ended = when_ended
        self._say = self.pieces.put if when_said is None else when_said
        self._cancelled = False
        self._deadline = None if options.seconds is None else time.monotonic() + options.seconds
        self._request: Request | None = request
        # What the scheduler works with, from here on:
        self.transcript = Transcript(
            pipeline.bundle.tokenizer, prompt.stop_tokens, options, room=request.room, streamed=streamed
        )
        self.sampler = Sampler(options, request.wanted.matcher)
        self.reuse = Reuse()
        self.planned_bytes = 0
        self.features: dict[TileKey, Buffer] = {}  # those of its tiles that are there
        self.missing: dict[TileKey, int] = {}  # the others, and which tile of the picture each is
        self.sequence: TokenSequence | None = None  # None before its prompt's turn, and as a row of the batch
        self.embeds: Buffer | None = None  # [S,C], of the prompt's part that the sequence does not hold
        self.prefilled = 0  # of these
        self.branches: Branches | None = None  # of a prompt that is prefilled, where there are choices
        self._tokenizer = pipeline.bundle.tokenizer

    @property
    def request(self) -> Request:
        if self._request is None:
            raise GarBackendError("the request is over")
        return self._request

    def cancel(self) -> None:
        """End the answer before the next run of the engine; any thread may call."""
        self._cancelled = True

    def stop_reason(self) -> FinishReason | None:
        """Why the answer must end now: its caller's wish, or its time is over."""
        options = self.request.options
        if self._cancelled or (options.cancel is not None and options.cancel.is_set()):
            return "cancelled"
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return "timeout"
        return None

    def push(self, token: int) -> None:
        """Take a token; afterwards `transcript.reason` says whether it was the last."""
        piece = self.transcript.push(token, over=self.sampler.over)
        if piece:
            self._say((piece, len(self.transcript.tokens)))

    def end(self, reason: FinishReason | None = None) -> None:
        """The answer is whole, or stops as it is for a reason."""
        if reason is not None and (rest := self.transcript.end(reason)):
            self._say((rest, len(self.transcript.tokens)))
        self.answer = self._made()
        structure = self.request.options.structure
        if structure is not None and reason is None and self.sampler.complete and not self.transcript.cut:
            self._read = structure.read
        if isinstance(self.answer, Choice) and self.answer.best is not None:
            self._say((self.answer.best, len(self.answer.tokens)))
        self._close()

    def result(self) -> Answer:
        """The answer, once `ended`; raises what it failed with.

        For the caller's thread: a structure's value may be made by code of the caller's, such as a pydantic model's.
        """
        if self.failure is not None:
            raise self.failure
        assert self.answer is not None  # an answering ends with one of both
        if self._read is None or self.answer.finish_reason != "stop":
            return self.answer
        try:
            return replace(self.answer, value=self._read(self.answer.text))
        except ValueError:  # a model may want more than its schema says
            return self.answer

    def fail(self, error: BaseException) -> None:
        """There will be no answer."""
        self.failure = error
        self._close()

    def guessed(self, count: int, true: int) -> None:
        """Note tokens that were guessed ahead, and how many of them came true."""
        self.reuse = replace(
            self.reuse,
            tokens_guessed=self.reuse.tokens_guessed + count,
            guesses_true=self.reuse.guesses_true + true,
        )

    def _made(self) -> Answer:
        request, transcript = self.request, self.transcript
        record = self.sampler.logprobs
        answer = Answer(
            text=transcript.text,
            tokens=tuple(transcript.tokens),
            finish_reason=transcript.reason or "cancelled",
            prompt_tokens=len(request.ids),
            grid=request.picture.grid,
            timings_ms=self.watch.timings(self._opening_ms),
            model=self.model,
            reuse=self.reuse,
            logprobs=None if record is None else record.read(self._tokenizer),
        )
        if request.options.choosing is None:
            return answer
        scored = None if self.branches is None or not self.branches.done else self.branches.logprobs
        return choose(answer, request.options.choosing, request.wanted.branches, scored)

    def _close(self) -> None:
        # Whoever holds the answer must not hold the picture: a scene that is gone frees what is kept of it.
        self._request = self.sequence = self.embeds = self.branches = None
        self.features, self.missing = {}, {}
        self.pieces.put(None)
        self.ended.set()
        if self._when_ended is not None:
            self._when_ended(self)
