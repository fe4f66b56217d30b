"""One answer: prompt, features, prefill, tokens, text, each when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np

from gar_edge.runtime.engines.limits import SELECTED_AT_ONCE
from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.generate.answer import Answer, Reuse, StopWatch
from gar_edge.runtime.generate.request import Picture, Request, embed_prompts, embed_text, features_end
from gar_edge.runtime.generate.reuse import Kept
from gar_edge.runtime.generate.sampling import Sampler, Stopped
from gar_edge.runtime.generate.speculation import PromptLookup
from gar_edge.runtime.model.sequence import TokenSequence

if TYPE_CHECKING:
    from gar_edge.runtime.gar import Gar


class AnswerStream:
    """An answer in the making: iterating yields text as soon as it is certain."""

    def __init__(self, gar: Gar, picture: Picture, request: Request, watch: StopWatch, preprocess_ms: float) -> None:
        self._gar = gar
        self._picture = picture
        self._request = request
        self._watch = watch
        self._preprocess_ms = preprocess_ms
        self._transcript = request.transcript(gar)
        self._failure: Exception | None = None
        self._reuse = Reuse()
        self._timings = watch.timings(preprocess_ms)
        self._text: Generator[str] = self._generate()

    def __iter__(self) -> Iterator[str]:
        return self._text

    def close(self) -> None:
        """Stop generating; `finish()` then returns what there is, with finish_reason "cancelled"."""
        self._text.close()

    def finish(self) -> Answer:
        """Wait for the rest and return the whole answer; raises again what iterating raised."""
        for _ in self._text:
            pass
        if self._failure is not None:
            raise self._failure
        return self._request.answer(self._gar, self._picture, self._transcript, self._timings, self._reuse)

    def _generate(self) -> Generator[str]:
        try:
            for token in self._generate_tokens():
                new = self._transcript.push(token)
                if new:
                    yield new
                if self._transcript.reason is not None:
                    break
        except Stopped as stopped:
            rest = self._transcript.end(stopped.reason)
            if rest:
                yield rest
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._timings = self._watch.timings(self._preprocess_ms)

    def _generate_tokens(self) -> Iterator[int]:
        sampler = Sampler(self._request.options)
        check = self._request.options.watchman()
        sequence, embeds = self._begin(check)
        try:
            with self._watch.stage("prefill"):
                (token,) = sampler(sequence.prefill(embeds, check))
            self._watch.mark("first_token")
            yield token
            yield from self._decode(sequence, sampler, token, check)
        finally:
            held = np.concatenate([self._request.ids, np.asarray(self._transcript.tokens, np.int64)])
            kept = Kept(self._picture.key, self._request.regions, held[: sequence.length], sequence)
            self._gar.kept.put(kept)

    def _decode(
        self, sequence: TokenSequence, sampler: Sampler, token: int, check: Callable[[], None]
    ) -> Iterator[int]:
        """Tokens after the first. Where guesses are allowed, a step may bring several: those that came true."""
        options = self._request.options
        most = min(options.speculate, SELECTED_AT_ONCE - 1) if options.temperature == 0 else 0
        text = PromptLookup([*self._request.ids.tolist(), token]) if most else None
        while True:
            check()
            room = self._request.room - len(self._transcript.tokens) - 1
            guess = text.guess(min(most, room)) if text is not None else []
            with self._watch.stage("decode"):
                tokens = sampler(sequence.step(self._gar.bundle.embed(np.asarray([token, *guess]))))
                true = next((n for n, one in enumerate(guess) if one != tokens[n]), len(guess))
                if true < len(guess):
                    sequence.rewind(sequence.length - (len(guess) - true))
            self._reuse = self._reuse.with_guess(len(guess), true)
            if text is not None:
                text.extend(tokens[: true + 1])
            token = tokens[true]
            yield from tokens[: true + 1]

    def _begin(self, check: Callable[[], None]) -> tuple[TokenSequence, Buffer]:
        """A sequence, empty or holding the prompt's beginning, and the embeddings [S,C] of the rest of the prompt."""
        gar, request = self._gar, self._request
        kept = gar.kept.take()
        fits = kept is not None and kept.sequence.capacity >= request.positions
        common = kept.common(self._picture.key, request.regions, request.ids) if kept is not None and fits else 0
        if kept is not None and common >= features_end(gar, request.ids):
            kept.sequence.rewind(common)
            self._reuse = Reuse(0, len(self._picture.tiles.pixels), len(request.ids) - common, common)
            return kept.sequence, embed_text(gar, request.ids[common:])
        if kept is not None and kept.sequence.capacity == gar.decoder.capacity_for(request.positions):
            kept.sequence.restart()
            return kept.sequence, self._embed(check)
        del kept  # its memory may be wanted now
        return gar.decoder.start(request.positions), self._embed(check)

    def _embed(self, check: Callable[[], None]) -> Buffer:
        ((embeds, self._reuse),) = embed_prompts(self._gar, self._picture, [self._request], self._watch, check)
        return embeds
