"""What can be asked about anything whose regions are marked, however its prompt is made."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Generic, Literal, TypeVar

import numpy as np

from gar_edge.runtime.errors import GarBusyError, GarPromptError
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.choosing import Choice, Choosing
from gar_edge.runtime.generate.options import DEFAULT, Options
from gar_edge.runtime.generate.request import Request
from gar_edge.runtime.generate.scheduler import Scheduler
from gar_edge.runtime.generate.side_by_side import Asked, answer_side_by_side
from gar_edge.runtime.generate.stream import AnswerStream

R = TypeVar("R")  # what a region is given as


class Askable(ABC, Generic[R]):
    """Questions about regions; a `Scene` and a `Clip` say how a question becomes a request."""

    def __init__(self, scheduler: Scheduler, *, opening_ms: float) -> None:
        """opening_ms: what preprocessing took; counts for the first answer."""
        self._scheduler = scheduler
        self._opening_ms = opening_ms

    @abstractmethod
    def prepare(self, question: str | None, regions: Mapping[int, R], *, options: Options = DEFAULT) -> Asked:
        """A request, checked and ready for `answer_side_by_side`, so that questions about many pictures share a run."""

    def describe(self, region: R, *, number: int | None = None, options: Options = DEFAULT) -> Answer:
        """Describe one region in detail. `number` is its number in the prompt (default: the released demo's, 1)."""
        return self._submitted(self.prepare(None, self._numbered(region, number), options=options)).finish()

    def ask(self, question: str, regions: Mapping[int, R], *, options: Options = DEFAULT) -> Answer:
        """Ask about one to five regions; the question names each as `<PromptK>`, K being its key in `regions`."""
        return self._submitted(self.prepare(question, regions, options=options)).finish()

    def choose(
        self,
        question: str | None,
        regions: Mapping[int, R],
        choices: Sequence[str],
        *,
        normalise: Literal["length"] | None = None,
        abstain_below: float = 0.0,
        options: Options = DEFAULT,
    ) -> Choice:
        """The likeliest of several answers, with the model's probability for each (docs/structured.md).

        Nothing is sampled: each choice is scored whole, its end included, as a continuation of the prompt. normalise:
        "length" compares means per token. abstain_below: choose none (`value` None) where the best one's probability
        is lower. Of the options only `seconds`, `cancel` and `live` matter. Errors as in `stream`. Many such questions
        are asked with `Options(choosing=…)`, by `answer_all`, streams, conversations and `LiveAnswers`.
        """
        choosing = Choosing(choices, normalise, abstain_below)
        answer = self._submitted(self.prepare(question, regions, options=replace(options, choosing=choosing))).finish()
        assert isinstance(answer, Choice)  # a request with choices ends with one
        return answer

    def describe_all(self, regions: Sequence[R], *, options: Options = DEFAULT) -> list[Answer]:
        """Describe several regions, each on its own but computed together; answers in the regions' order."""
        answers = dict(self.answer_all([(None, self._numbered(region)) for region in regions], options=options))
        return [answers[index] for index in range(len(regions))]

    def answer_all(
        self, questions: Sequence[tuple[str | None, Mapping[int, R]]], *, options: Options = DEFAULT
    ) -> Iterator[tuple[int, Answer]]:
        """Answer several questions side by side, each about its own regions, as in `stream`.

        Yields each answer with its question's index as soon as it is complete. `Gar.load(batch=…)` and the free memory
        limit how many are in the making at once. Errors are raised here, before anything is computed.
        """
        asked = [self.prepare(question, regions, options=options) for question, regions in questions]
        self._warn_of_little_memory([one.request for one in asked])
        return answer_side_by_side(self._scheduler, asked)

    def stream(self, question: str | None, regions: Mapping[int, R], *, options: Options = DEFAULT) -> AnswerStream:
        """Ask, and read the answer piece by piece: iterate over the text, then `finish()` for the answer.

        Regions are what `find_mask` takes: masks as paths, Pillow images or [H,W] arrays, a `Box`, `Points` or
        `Scribble`, of which GrabCut makes a mask, run lengths, polygons. They stand in the prompt in the order of the
        mapping, and where they overlap the earlier one wins. `GarMaskError`, `GarPromptError` and, where too many
        requests wait already, `GarBusyError` are raised here, before anything is computed.
        """
        return self._submitted(self.prepare(question, regions, options=options), streamed=True)

    def _submitted(self, asked: Asked, *, streamed: bool = False) -> AnswerStream:
        try:
            answering = self._scheduler.submit(
                asked.request, watch=asked.watch, opening_ms=asked.opening_ms, streamed=streamed
            )
        except GarBusyError:
            self._opening_ms = asked.opening_ms  # it counts for the first answer, and this is none
            raise
        return AnswerStream(answering)

    def _numbered(self, region: R, number: int | None = None) -> dict[int, R]:
        return {self._scheduler.pipeline.manifest.prompt.default_region if number is None else number: region}

    def _take_opening(self) -> float:
        """The picture's own preprocessing counts for the first answer about it only."""
        opening, self._opening_ms = self._opening_ms, 0.0
        return opening

    def _warn_of_little_memory(self, requests: Sequence[Request]) -> None:
        wanted = min(len(requests), self._scheduler.places)
        if wanted < 2:
            return
        longest = max(requests, key=lambda request: request.positions)
        fitting, free = self._scheduler.fitting(longest)
        if fitting < wanted:
            each = self._scheduler.pipeline.decoder.planned_bytes(longest.positions)
            warnings.warn(
                f"{wanted} caches of {each >> 20} MiB do not fit the memory that is free ({free >> 20} MiB): "
                f"{fitting} regions are answered at a time",
                stacklevel=4,
            )


def region_numbers(regions: Mapping[int, R]) -> list[int]:
    """The keys of a mapping of regions; `GarPromptError` for what is none."""
    if not isinstance(regions, Mapping) or not all(isinstance(number, (int, np.integer)) for number in regions):
        raise GarPromptError("regions must be a mapping of region numbers to masks, e.g. {0: mask}")
    return list(regions)
