"""What comes back from a question."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from gar_edge.runtime.generate.logprobs import Confidence, TokenLogprob
from gar_edge.runtime.images.tiling import Grid

FinishReason = Literal["stop", "length", "cancelled", "timeout"]


@dataclass(frozen=True)
class Timings:
    """Wall time per stage in milliseconds; `first_token` counts from the question to the first token.

    Seen from the host: an engine on a GPU works on while the host queues the next stage, and what is left of encoder
    and replay is then waited for, and counted, in prefill.
    """

    preprocess: float
    encode: float
    replay: float
    prefill: float
    decode: float
    first_token: float
    total: float


@dataclass(frozen=True)
class Reuse:
    """What was computed for an answer and what earlier answers had left: tiles of the encoder, tokens of the prompt.

    tokens_guessed, guesses_true: of the answer's tokens, where `Options.speculate` allows guesses or a structure leaves
    only one way to go on.
    """

    tiles_encoded: int = 0
    tiles_reused: int = 0
    tokens_prefilled: int = 0
    tokens_reused: int = 0
    tokens_guessed: int = 0
    guesses_true: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer about one or more regions.

    tokens: the generated ids, the stop token included where one was said. prompt_tokens: the prompt's length with all
    image and replay tokens. grid: (columns, rows) of tiles. finish_reason: "stop" (stop token, stop text, or a
    structure that has no place for more), "length" (max_new_tokens or the model's context), "cancelled", "timeout".
    value: where a structure was asked for, what the answer says: a schema's object, else the text; None where the
    answer did not come to its end. logprobs: of each token, where asked for.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    grid: Grid
    timings_ms: Timings
    model: str
    reuse: Reuse
    value: Any = None
    logprobs: tuple[TokenLogprob, ...] | None = None

    @property
    def confidence(self) -> Confidence | None:
        """How likely the model found its own words, where logprobs were asked for."""
        return None if self.logprobs is None else Confidence.of(self.logprobs)

    def to_json(self) -> dict[str, Any]:
        """The object that `gar-run --json` prints."""
        said: dict[str, Any] = {}
        if self.logprobs is not None:
            said["confidence"] = _rounded(self.confidence)
            said["logprobs"] = [one.to_json() for one in self.logprobs]
        return {
            "text": self.text,
            "value": self.value.model_dump(mode="json") if hasattr(self.value, "model_dump") else self.value,
            "tokens": list(self.tokens),
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.prompt_tokens,
            "grid": list(self.grid),
            "timings_ms": {name: round(value, 3) for name, value in vars(self.timings_ms).items()},
            "reuse": dict(vars(self.reuse)),
            "model": self.model,
            **said,
        }


def _rounded(confidence: Confidence | None) -> dict[str, float] | None:
    return None if confidence is None else {name: round(value, 6) for name, value in vars(confidence).items()}


class StopWatch:
    """Collects milliseconds per stage."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, (time.perf_counter() - begin) * 1e3)

    def __getitem__(self, name: str) -> float:
        return self._stages.get(name, 0.0)

    def add(self, name: str, milliseconds: float) -> None:
        """Add time that was spent for several answers together."""
        self._stages[name] = self[name] + milliseconds

    def mark(self, name: str) -> None:
        """Note the time since the beginning, the first time only."""
        self._stages.setdefault(name, self.elapsed())

    def elapsed(self) -> float:
        return (time.perf_counter() - self._begin) * 1e3

    def timings(self, preprocess: float) -> Timings:
        """All stages; `preprocess` is the picture's own, spent when the scene was opened."""
        return Timings(
            preprocess=preprocess + self["preprocess"],
            encode=self["encode"],
            replay=self["replay"],
            prefill=self["prefill"],
            decode=self["decode"],
            first_token=preprocess + self["first_token"] if "first_token" in self._stages else 0.0,
            total=preprocess + self.elapsed(),
        )
