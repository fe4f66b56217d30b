"""The choices of a request as branches of its prompt: how likely the model is to answer each, whole."""

from __future__ import annotations

from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.limits import SELECTED_AT_ONCE
from gar_edge.runtime.generate.logprobs import log_softmax
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.generate.request import Request
from gar_edge.runtime.model.sequence import TokenSequence


class Branches:
    """`logprobs` [N] of the choices once `done`: the sum over a choice's tokens and the end behind them.

    The end counts, or a choice that begins another would always be the likelier one; it is any of the stop tokens.
    A run goes through one choice and predicts behind each of its tokens; the sequence is rewound for the next. (As rows
    of a batch, whose caches are copies of the prompt's, choices took 1.4 to 2 times as long: docs/decisions.md.)
    """

    def __init__(self, pipeline: Pipeline, request: Request, logits: NDArray[np.float32]) -> None:
        """logits: what follows the prompt, [V]."""
        self.logprobs = np.zeros(len(request.wanted.branches))
        self._bundle = pipeline.bundle
        self._branches = request.wanted.branches
        self._prompt = len(request.ids)
        self._stops = list(pipeline.manifest.prompt.stop_tokens)
        # In an order in which neighbours share their beginnings, which are then computed once.
        self._left = sorted(range(len(self._branches)), key=self._branches.__getitem__)
        self._path: tuple[int, ...] = ()  # what the sequence holds behind the prompt
        self._behind = [log_softmax(logits)]  # the prompt, and each token of the path: [V]

    @property
    def done(self) -> bool:
        return not self._left

    def advance(self, sequence: TokenSequence) -> None:
        """One choice, from where it parts from the one before; when done, the sequence holds the prompt again."""
        index = self._left.pop(0)
        branch = self._branches[index]
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(branch, self._path, strict=False)))
        sequence.rewind(self._prompt + common)
        del self._behind[common + 1 :]
        for begin in range(common, len(branch), SELECTED_AT_ONCE):
            part = branch[begin : begin + SELECTED_AT_ONCE]
            prediction = sequence.step(self._bundle.embed(np.asarray(part)))
            self._behind += [log_softmax(prediction.row(place)) for place in range(len(part))]
        self._path = branch
        said = [float(behind[token]) for behind, token in zip(self._behind, branch, strict=False)]
        self.logprobs[index] = sum(said) + np.logaddexp.reduce(self._behind[-1][self._stops].astype(np.float64))
        if self.done:
            sequence.rewind(self._prompt)
