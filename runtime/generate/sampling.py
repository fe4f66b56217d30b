"""Choosing the next token from logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.model.sequence import Prediction


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
