"""An answer in the making, as its caller sees it."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Generator, Iterator

from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.answering import Answering


class AnswerStream:
    """Iterating yields text as soon as it is certain. The answer is made meanwhile, whether anybody reads or not.

    A stream that is let go of unfinished ends its answer, as `close()` does.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._read: list[str] = []
        self._tokens = 0  # that the pieces read so far came from
        self._closed = False
        self._text: Generator[str] = self._pieces()
        weakref.finalize(self, answering.cancel)

    def __iter__(self) -> Iterator[str]:
        return self._text

    def close(self) -> None:
        """Stop generating; `finish()` then returns what was read, with finish_reason "cancelled"."""
        self._closed = self._closed or not self._is_read()
        self._answering.cancel()
        self._text.close()

    def finish(self) -> Answer:
        """Wait for the rest and return the whole answer; raises again what iterating raised."""
        try:
            self._answering.ended.wait()
        except BaseException:  # an interrupted caller wants no answer any more
            self._answering.cancel()
            raise
        if self._answering.failure is not None:
            raise self._answering.failure
        answer = self._answering.answer
        assert answer is not None  # an answering ends with one of both
        if not self._closed:
            return answer
        return dataclasses.replace(
            answer, text="".join(self._read), tokens=answer.tokens[: self._tokens], finish_reason="cancelled"
        )

    def _is_read(self) -> bool:
        answer = self._answering.answer
        return answer is not None and len("".join(self._read)) == len(answer.text) and self._tokens > 0

    def _pieces(self) -> Generator[str]:
        while (piece := self._next()) is not None:
            text, self._tokens = piece
            self._read.append(text)
            yield text
        if self._answering.failure is not None:
            raise self._answering.failure

    def _next(self) -> tuple[str, int] | None:
        try:
            return self._answering.pieces.get()
        except BaseException:
            self._answering.cancel()
            raise
