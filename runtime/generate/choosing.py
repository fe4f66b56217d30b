"""Picking among choices by the model's own probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.structure import check_choices

MOST_CHOICES = 256  # each is computed; a longer list is a search, and wants another tool
MOST_TOKENS = 256  # of a choice: what follows each is kept while it is scored


@dataclass(frozen=True)
class Choosing:
    """What to choose from, and how.

    normalise: "length" compares means over a choice's tokens rather than sums, for choices of very different lengths.
    abstain_below: choose none where the best one's probability is lower.
    """

    choices: Sequence[str]
    normalise: Literal["length"] | None = None
    abstain_below: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self.choices)
        if len(self.choices) > MOST_CHOICES:
            raise GarPromptError(f"{len(self.choices)} choices were given; at most {MOST_CHOICES} are taken")
        if self.normalise not in (None, "length"):
            raise GarPromptError(f'normalise must be None or "length", not {self.normalise!r}')
        if not 0 <= self.abstain_below <= 1:
            raise GarPromptError(f"abstain_below must be a probability, 0 to 1, not {self.abstain_below}")
        object.__setattr__(self, "choices", tuple(self.choices))  # the caller's list may change while it is answered


@dataclass(frozen=True)
class ScoredChoice:
    """One of the choices. logprob: the sum over its tokens and the answer's end, of all that the model might say."""

    text: str
    probability: float
    logprob: float

    def to_json(self) -> dict[str, Any]:
        """The fields, numbers rounded to six places."""
        return {"text": self.text, "probability": round(self.probability, 6), "logprob": round(self.logprob, 6)}


@dataclass(frozen=True, kw_only=True)
class Choice(Answer):
    """The likeliest of several choices.

    value and text: the best; None and "" where it was not likely enough. choices: all, in the caller's order; their
    probabilities add up to 1. margin: of the likeliest over the second, in probability. entropy: of the probabilities,
    in nats. There are no choices where the answer was cancelled or out of time.
    """

    choices: tuple[ScoredChoice, ...] = ()
    margin: float = 0.0
    entropy: float = 0.0

    @property
    def best(self) -> str | None:
        """The choice taken; None: abstained."""
        return None if self.value is None else str(self.value)

    @property
    def likeliest(self) -> ScoredChoice | None:
        """The most probable, taken or not; None where there are no choices."""
        return max(self.choices, key=lambda choice: choice.probability, default=None)

    @property
    def probabilities(self) -> dict[str, float]:
        """Of each choice."""
        return {choice.text: choice.probability for choice in self.choices}

    def to_json(self) -> dict[str, Any]:
        """As an answer's, with the choices."""
        return super().to_json() | {
            "choices": [choice.to_json() for choice in self.choices],
            "margin": round(self.margin, 6),
            "entropy": round(self.entropy, 6),
        }


def choose(
    answer: Answer, choosing: Choosing, branches: Sequence[Sequence[int]], logprobs: NDArray[np.float64] | None
) -> Choice:
    """The choice, from logprobs [N] of whole answers; None: they were not all computed.

    answer: what is known beside. branches: the tokens of each choice. Of equals the first is the best.
    """
    if logprobs is None:
        return _with(answer, "", (), None, (), margin=0.0, entropy=0.0)
    scores = logprobs / [len(branch) + 1 for branch in branches] if choosing.normalise else logprobs
    weights = np.exp(scores - scores.max())
    shares = weights / weights.sum()
    best = int(scores.argmax())
    scored = tuple(map(ScoredChoice, choosing.choices, shares.tolist(), logprobs.tolist()))
    second, first = np.sort(shares)[-2:]
    taken = first >= choosing.abstain_below
    return _with(
        answer,
        choosing.choices[best] if taken else "",
        tuple(branches[best]) if taken else (),
        choosing.choices[best] if taken else None,
        scored,
        margin=float(first - second),
        entropy=float(-(shares * np.log(np.maximum(shares, np.finfo(np.float64).tiny))).sum()),
    )


def _with(
    answer: Answer,
    text: str,
    tokens: tuple[int, ...],
    value: str | None,
    choices: tuple[ScoredChoice, ...],
    *,
    margin: float,
    entropy: float,
) -> Choice:
    return Choice(
        text=text,
        tokens=tokens,
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.prompt_tokens,
        grid=answer.grid,
        timings_ms=answer.timings_ms,
        model=answer.model,
        reuse=answer.reuse,
        value=value,
        choices=choices,
        margin=margin,
        entropy=entropy,
    )
