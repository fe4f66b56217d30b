"""How a question is to be answered."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.generate.choosing import Choosing
from gar_edge.runtime.generate.structure import Schema, Structure


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to answer.

    max_new_tokens: at most this many, the stop token counted. temperature 0 takes the likeliest token; above 0 tokens
    are drawn from softmax(logits / temperature), cut to the `top_k` likeliest (0: all) and then to the smallest set
    whose probability reaches `top_p`; `seed` makes draws repeatable. `stop`: texts that end the answer and are left
    out of it. `cancel`: an event that ends it from another thread. `seconds`: end it so long after it was asked,
    between two runs of the engine. `speculate`: guess up to so many tokens ahead where the text repeats itself, and
    check them in one step; the greedy answer is the same (at temperature 0, while nothing else is answered). `live`:
    go before all requests that wait and are not.

    At most one of `schema` (JSON Schema, or a pydantic model), `regex` (the whole answer), `choices` (the answer is one
    of these) and `grammar` (Lark) gives the answer a structure: only tokens that keep to it are taken, and
    `Answer.value` is what it says. `choosing` instead picks the answer by probability, and it is a `Choice`; of the
    rest only `cancel`, `seconds` and `live` matter then. `logprobs`: say how likely each token was, and this many
    likeliest in its place.
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
    live: bool = False
    schema: Schema | None = field(default=None, hash=False)
    regex: str | None = None
    choices: tuple[str, ...] = ()
    grammar: str | None = None
    choosing: Choosing | None = None
    logprobs: int | None = None

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
        if self.cancel is not None and not isinstance(self.cancel, threading.Event):
            raise GarPromptError(f"cancel must be a threading.Event, not {type(self.cancel).__name__}")
        if any(not text for text in self.stop):
            raise GarPromptError("a stop text must not be empty")
        if self.logprobs is not None and self.logprobs < 0:
            raise GarPromptError(f"logprobs must be 0 (the tokens' own) or more, not {self.logprobs}")
        if self.choosing is not None and not isinstance(self.choosing, Choosing):
            raise GarPromptError(f"choosing must be a Choosing, not {type(self.choosing).__name__}")
        if self.structure is not None and self.choosing is not None:
            raise GarPromptError("an answer is chosen or has a structure, not both")

    @cached_property
    def structure(self) -> Structure | None:
        """What the answer must look like; None: as it comes."""
        return Structure.of(schema=self.schema, regex=self.regex, choices=self.choices, grammar=self.grammar)


DEFAULT = Options()
