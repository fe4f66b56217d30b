"""An answer in the making, as its caller sees it."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator

from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.answering import Answering


class AnswerStream:
    """Iterating yields text as soon as it is certain. The answer is made meanwhile, whether anybody reads or not.

    A stream that is let go of unfinished ends its answer, as `close()` does.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._pieces = _Pieces(answering)
        # Not of the stream itself: `for piece in scene.stream(…)` holds nothing but its iterator.
        weakref.finalize(self._pieces, answering.cancel)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def close(self) -> None:
        """Stop generating; `finish()` then returns what was read, with finish_reason "cancelled"."""
        self._pieces.closed = True
        self._answering.cancel()

    def finish(self) -> Answer:
        """Wait for the rest and return the whole answer; raises again what iterating raised."""
        return self._as_read(self._ended().result())

    def said(self) -> str:
        """Wait for the rest and return the answer's text, whatever its value; raises again what iterating raised."""
        answering = self._ended()
        if answering.failure is not None:
            raise answering.failure
        assert answering.answer is not None  # an answering ends with one of both
        return self._as_read(answering.answer).text

    def _ended(self) -> Answering:
        try:
            self._answering.ended.wait()
        except BaseException:  # an interrupted caller wants no answer any more
            self._answering.cancel()
            raise
        return self._answering

    def _as_read(self, answer: Answer) -> Answer:
        """The answer; of a stream that was closed, as far as it was read, which is no value."""
        if not self._pieces.closed or self._pieces.over:
            return answer
        text, count = "".join(self._pieces.read), self._pieces.tokens
        return dataclasses.replace(
            answer,
            text=text,
            tokens=answer.tokens[:count],
            finish_reason="cancelled",
            value=None,
            logprobs=None if answer.logprobs is None else answer.logprobs[:count],
        )


class _Pieces:
    """Text as it comes. `read`: what was yielded; `tokens`: how many that took; `over`: whether it was all."""

    def __init__(self, answering: Answering) -> None:
        self.read: list[str] = []
        self.tokens = 0
        self.closed = self.over = False
        self._answering = answering

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.closed or self.over:
            raise StopIteration
        try:
            piece = self._answering.pieces.get()
        except BaseException:
            self._answering.cancel()
            raise
        if piece is not None:
            text, self.tokens = piece
            self.read.append(text)
            return text
        self.over = True
        if self._answering.failure is not None:
            raise self._answering.failure
        raise StopIteration
