"""Many questions about one picture, answered side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.generate.answer import Answer, Reuse, StopWatch
from gar_edge.runtime.generate.request import Picture, Request, embed_prompts
from gar_edge.runtime.generate.sampling import Options, Sampler, Stopped
from gar_edge.runtime.generate.transcript import Transcript
from gar_edge.runtime.model.sequence import Prediction
from gar_edge.runtime.model.sequence_batch import SequenceBatch

if TYPE_CHECKING:
    from gar_edge.runtime.gar import Gar

CACHE_SHARE = 0.5  # of the free memory goes to caches at most: activations and other programs need some too


@dataclass
class _Speaker:
    """A request that is being answered; its latest token has not been decoded yet."""

    number: int
    request: Request
    transcript: Transcript
    sampler: Sampler
    reuse: Reuse = field(default_factory=Reuse)


class BatchAnswers:
    """Answers to several requests, each yielded with its number as soon as it is complete.

    Tiles are encoded together, prompts prefilled together, tokens decoded together. An answer that ends leaves, and
    where more requests came than have room at once, the next one takes its place. Their timings are the batch's, up
    to their own end.
    """

    def __init__(
        self,
        gar: Gar,
        picture: Picture,
        requests: Sequence[Request],
        options: Options,
        watch: StopWatch,
        preprocess_ms: float,
    ) -> None:
        self._gar = gar
        self._picture = picture
        self._requests = requests
        self._options = options
        self._watch = watch
        self._preprocess_ms = preprocess_ms
        self._waiting = [
            _Speaker(number, request, request.transcript(gar), Sampler(options))
            for number, request in enumerate(requests)
        ]
        self._speaking: list[_Speaker] = []  # in the order of their rows in the batch

    def __iter__(self) -> Iterator[tuple[int, Answer]]:
        gar, speaking, waiting = self._gar, self._speaking, self._waiting
        capacity = max(request.positions for request in self._requests)
        places = plan_places(gar, len(waiting), capacity)
        batch = SequenceBatch(gar.decoder, places, capacity)
        check = self._options.watchman()
        embeds = embed_prompts(gar, self._picture, self._requests, self._watch, check)
        try:
            while waiting or speaking:
                if waiting and len(speaking) < places:
                    new = waiting[: places - len(speaking)]
                    self._join(batch, new, [next(embeds) for _ in new], check)
                    del waiting[: len(new)]
                else:
                    check()
                    self._step(batch)
                yield from self._take_finished(batch)
        except Stopped as stopped:
            for speaker in (*speaking, *waiting):
                speaker.transcript.end(stopped.reason)
                yield speaker.number, self._answer(speaker)

    def _join(
        self,
        batch: SequenceBatch,
        new: list[_Speaker],
        embeds: list[tuple[Buffer, Reuse]],
        check: Callable[[], None],
    ) -> None:
        for speaker, (_, reuse) in zip(new, embeds, strict=True):
            speaker.reuse = reuse
        with self._watch.stage("prefill"):
            prediction = batch.join([prompt for prompt, _ in embeds], check)
            self._speak(new, prediction)
        self._watch.mark("first_token")
        self._speaking.extend(new)

    def _step(self, batch: SequenceBatch) -> None:
        with self._watch.stage("decode"):
            latest = np.asarray([speaker.transcript.tokens[-1] for speaker in self._speaking])
            self._speak(self._speaking, batch.step(self._gar.bundle.embed(latest)))

    def _speak(self, speakers: list[_Speaker], prediction: Prediction) -> None:
        if self._options.temperature == 0:
            tokens = prediction.tokens().tolist()
        else:
            pairs = zip(speakers, prediction.logits(), strict=True)
            tokens = [speaker.sampler.draw(logits) for speaker, logits in pairs]
        for speaker, token in zip(speakers, tokens, strict=True):
            speaker.transcript.push(token)

    def _take_finished(self, batch: SequenceBatch) -> Iterator[tuple[int, Answer]]:
        speaking = self._speaking
        for row in reversed(range(len(speaking))):
            if speaking[row].transcript.reason is not None:
                done = speaking[row]
                batch.leave(row)
                speaking[row] = speaking[-1]  # as the batch did
                speaking.pop()
                yield done.number, self._answer(done)

    def _answer(self, speaker: _Speaker) -> Answer:
        timings = self._watch.timings(self._preprocess_ms)
        return speaker.request.answer(self._gar, self._picture, speaker.transcript, timings, speaker.reuse)


def plan_places(gar: Gar, wanted: int, capacity: int) -> int:
    """How many sequences are decoded at once: as many as are wanted and fit into the free memory, with a warning."""
    each, free = gar.decoder.cache_bytes(capacity), gar.backend.free_memory()
    most = min(wanted, gar.most_at_once)
    fitting = max(1, int(free * CACHE_SHARE) // each) if free else most
    if fitting < most:
        warnings.warn(
            f"{most} caches of {each >> 20} MiB do not fit the memory that is free ({free >> 20} MiB): "
            f"{fitting} regions are answered at a time",
            stacklevel=2,
        )
    return min(most, fitting)
