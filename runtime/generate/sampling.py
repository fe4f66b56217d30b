"""Choosing the next token from what the decoder predicts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.generate.guide import Matcher
from gar_edge.runtime.generate.logprobs import LogprobRecord
from gar_edge.runtime.generate.options import Options


class Sampler:
    """Takes the tokens of one answer. `logprobs`: how likely each was, where that is asked for."""

    def __init__(self, options: Options, matcher: Matcher | None = None) -> None:
        """matcher: at the beginning of the answer's structure."""
        self.logprobs = None if options.logprobs is None else LogprobRecord(options.logprobs)
        self._options = options
        self._matcher = None if matcher is None else matcher.copy()  # the structure serves other answers too
        self._random = np.random.default_rng(options.seed)
        self._at_odds = options.temperature > 0  # whether the next token will want the structure's whole mask

    def look(self) -> None:
        """Prepare for the next token, while the engine computes what it may be.

        Where the likeliest token was right by itself, the next one most often is, and no mask is needed.
        """
        if self._matcher is not None and self._at_odds:
            self._matcher.look()

    def take(self, likeliest: int, logits: Callable[[], NDArray[np.float32]]) -> int:
        """The next token. likeliest: the engine's; logits: all [V], read only where that one does not settle it."""
        matcher = self._matcher
        values = logits() if self._options.temperature > 0 or self.logprobs is not None else None
        if self._options.temperature > 0:
            assert values is not None
            token = self.draw(values if matcher is None else matcher.narrow(values))
        elif matcher is None or matcher.allows(likeliest):
            token = likeliest
            self._at_odds = False
        else:
            self._at_odds = True
            token = int(matcher.narrow(logits() if values is None else values).argmax())
        if matcher is not None:
            matcher.take(token)
        if self.logprobs is not None:
            assert values is not None
            self.logprobs.add(token, values)
        return token

    def forced(self, most: int) -> list[int]:
        """The next tokens where the structure leaves but one; the engine can go through them in one run."""
        return [] if self._matcher is None else self._matcher.forced(most)

    @property
    def complete(self) -> bool:
        """Whether the answer is as its structure wants it."""
        return self._matcher is None or self._matcher.complete

    @property
    def over(self) -> bool:
        """Whether the structure has no place for another token."""
        return self._matcher is not None and self._matcher.over

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
