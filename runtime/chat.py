"""A conversation about the regions of one picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.generate.answer import Answer, StopWatch
from gar_edge.runtime.generate.prompt import Turn
from gar_edge.runtime.generate.request import Picture, Request
from gar_edge.runtime.generate.sampling import Options
from gar_edge.runtime.generate.stream import AnswerStream

if TYPE_CHECKING:
    from gar_edge.runtime.gar import Gar


class Chat:
    """Questions that build on one another.

    The first must name every region; later ones name those they are about. Each prompt is the whole conversation in
    the model's own chat template, and what the KV cache holds of it is not computed again.
    """

    def __init__(
        self,
        gar: Gar,
        picture: Picture,
        regions: Mapping[int, NDArray[np.bool_]],
        options: Options,
        preprocess_ms: float,
    ) -> None:
        self._gar = gar
        self._picture = picture
        self._regions = regions
        self._options = options
        self._preprocess_ms = preprocess_ms
        self._first: str | None = None
        self._turns: list[Turn] = []
        self._latest: AnswerStream | None = None

    def ask(self, question: str) -> Answer:
        """Ask the next question; `GarPromptError` where it cannot be asked, and the conversation stays as it was."""
        return self.stream(question).finish()

    def stream(self, question: str) -> AnswerStream:
        """The same, piece by piece. An answer that is still in the making is finished first."""
        turns = self._turns
        if self._latest is not None:
            turns = [*turns, Turn(self._latest.finish().text, question)]
        first = question if self._first is None else self._first
        ids = self._gar.prompts.build(first, list(self._regions), len(self._picture.tiles.pixels), turns)
        request = Request.of(self._gar, ids, self._regions, self._options)
        opening, self._preprocess_ms = self._preprocess_ms, 0.0
        self._first, self._turns = first, turns
        self._latest = AnswerStream(self._gar, self._picture, request, StopWatch(), opening)
        return self._latest
