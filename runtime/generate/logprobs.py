"""How likely the model found what it said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


@dataclass(frozen=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability, in the model's own distribution: at temperature 1, and
    before any structure takes tokens away. `text` is what it says alone; `likeliest` are those in its place that were
    asked for, the likeliest first.
    """

    token: int
    text: str
    logprob: float
    likeliest: tuple[TokenLogprob, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields, numbers rounded to six places."""
        one: dict[str, Any] = {"token": self.token, "text": self.text, "logprob": round(self.logprob, 6)}
        return one | ({"likeliest": [other.to_json() for other in self.likeliest]} if self.likeliest else {})


@dataclass(frozen=True)
class Confidence:
    """Probabilities of an answer's tokens: `mean`, the geometric one, and `lowest`."""

    mean: float
    lowest: float

    @classmethod
    def of(cls, logprobs: Sequence[TokenLogprob]) -> Confidence | None:
        """None of an answer without tokens."""
        if not logprobs:
            return None
        values = [one.logprob for one in logprobs]
        return cls(math.exp(sum(values) / len(values)), math.exp(min(values)))


class LogprobRecord:
    """Collects an answer's tokens and the N likeliest in the place of each."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._said: list[tuple[int, float, list[tuple[int, float]]]] = []

    def add(self, token: int, logits: NDArray[np.float32]) -> None:
        """Note a token and what was predicted in its place, logits [V] before any structure."""
        logprobs = log_softmax(logits)
        count = min(self._count, len(logprobs))
        likeliest = np.argpartition(-logprobs, count - 1)[:count] if count else np.empty(0, np.int64)
        likeliest = likeliest[np.lexsort((likeliest, -logprobs[likeliest]))]  # equals by their ids, as argmax does
        self._said.append((token, float(logprobs[token]), [(int(id), float(logprobs[id])) for id in likeliest]))

    def read(self, tokenizer: Tokenizer) -> tuple[TokenLogprob, ...]:
        """What was noted, with its texts."""

        def one(token: int, logprob: float) -> TokenLogprob:
            return TokenLogprob(token, tokenizer.decode([token], skip_special_tokens=False), logprob)

        return tuple(
            TokenLogprob(token, one(token, logprob).text, logprob, tuple(one(*other) for other in likeliest))
            for token, logprob, likeliest in self._said
        )


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logarithms of probabilities [V] from logits [V]."""
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum(dtype=np.float64)), np.float32)
