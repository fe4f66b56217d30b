"""A conversation that a request tells from its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.generate.prompt import Turn
from gar_edge.runtime.serve.questions import Wish


def conversation(turns: Sequence[tuple[str | None, str]], question: str, regions: Any) -> Wish:
    """Turns so far (question and answer of each) and the next question.

    The first turn's question is None where it had its region described; `GarPromptError` where a later one's is.
    """
    if not turns:
        return Wish(question, regions)
    later = [asked for asked, _ in turns[1:]]
    if None in later:
        raise GarPromptError("only the first turn may be without a question: the description of the one region")
    following = [*(asked or "" for asked in later), question]
    told = [Turn(answer, then) for (_, answer), then in zip(turns, following, strict=True)]
    return Wish(turns[0][0], regions, told)
