"""Choosing the next token from logits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.model.sequence import Prediction


@dataclass(frozen=True)
class Options:
    """How to answer.

    max_new_tokens: at most this many, the stop token counted. temperature 0 takes the likeliest token; above 0 tokens
    are drawn from softmax(logits / temperature), cut to the `top_k` likeliest (0: all) and then to the smallest set
    whose probability reaches `top_p`; `seed` makes draws repeatable. `stop`: texts that end the answer and are left
    out of it. `cancel`: an event that ends it from another thread. `seconds`: end it after so long, between two
    runs of the engine. `speculate`: guess up to so many tokens
    ahead where the text repeats itself, and check them in one step; the greedy answer is the same (single answers at
    temperature 0).
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    cancel: threading.Event | None = None
    seconds: float | None = None
    speculate: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise GarPromptError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise GarPromptError(f"temperature must be 0 or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise GarPromptError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise GarPromptError(f"top_k must be 0 (all) or more, not {self.top_k}")
        if self.seconds is not None and not self.seconds > 0:
            raise GarPromptError(f"seconds must be above 0, not {self.seconds}")
        if self.speculate < 0:
            raise GarPromptError(f"speculate must be 0 (never guess) or more, not {self.speculate}")
        if self.seed is not None and self.seed < 0:
            raise GarPromptError(f"seed must be 0 or more, not {self.seed}")
        if any(not text for text in self.stop):
            raise GarPromptError("a stop text must not be empty")

    def watchman(self) -> Callable[[], None]:
        """A function that raises `Stopped` once the event is set, or the time is over that begins now."""
        deadline = None if self.seconds is None else time.monotonic() + self.seconds

        def check() -> None:
            if self.cancel is not None and self.cancel.is_set():
                raise Stopped("cancelled")
            if deadline is not None and time.monotonic() >= deadline:
                raise Stopped("timeout")

        return check


class Stopped(Exception):  # noqa: N818 - not an error: the caller's wish
    """The options' event was set, or their time is over; `reason` says which."""

    def __init__(self, reason: Literal["cancelled", "timeout"]) -> None:
        super().__init__(reason)
        self.reason = reason


class Sampler:
    """Draws tokens for one answer."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._random = np.random.default_rng(options.seed)

    def __call__(self, prediction: Prediction) -> list[int]:
        """A token for each predicted position; logits are read only where one is drawn."""
        if self._options.temperature == 0:
            return prediction.tokens().tolist()
        return [self.draw(logits) for logits in prediction.logits()]

    def draw(self, logits: NDArray[np.float32]) -> int:
        """A token's id from logits [V]; temperature above 0."""
        options = self._options
        ids = np.arange(len(logits))
        if 0 < options.top_k < len(logits):
            ids = np.argpartition(-logits, options.top_k - 1)[: options.top_k]
        with np.errstate(over="ignore", under="ignore"):
            weights = np.exp((logits[ids].astype(np.float64) - float(logits.max())) / options.temperature)
        weights /= weights.sum()
        if options.top_p < 1:
            # Tokens rarer than this cannot be needed to reach top_p: leaving them out spares sorting the vocabulary.
            likely = weights >= (1 - options.top_p) / len(weights)
            ids, weights = ids[likely], weights[likely]
            order = np.argsort(-weights, kind="stable")
            ids, weights = ids[order], weights[order]
            # The token that crosses top_p still belongs to the set.
            kept = int(np.searchsorted(weights.cumsum(), options.top_p)) + 1
            ids, weights = ids[:kept], weights[:kept] / weights[:kept].sum()
        return int(self._random.choice(ids, p=weights))
