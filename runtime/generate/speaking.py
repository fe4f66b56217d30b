"""Requests behind their first token: one step of the decoder for all of them at a time."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial

import numpy as np

from gar_edge.runtime.engines.limits import SELECTED_AT_ONCE
from gar_edge.runtime.errors import GarBackendError, GarPromptError
from gar_edge.runtime.generate.answering import Answering
from gar_edge.runtime.generate.kept import KeptSequence, KeptWork
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.generate.speculation import PromptLookup
from gar_edge.runtime.model.batch import SequenceBatch
from gar_edge.runtime.model.in_place import InPlaceSequence
from gar_edge.runtime.model.sequence import TokenSequence
from gar_edge.runtime.model.start import start_sequence


class Speakers:
    """`all`: the answers that are being said, in the order of their rows.

    One alone goes on in its own sequence, where it may guess ahead; two and more are rows of a batch.
    """

    def __init__(self, pipeline: Pipeline, kept: KeptWork, places: int) -> None:
        self.all: list[Answering] = []
        self._pipeline = pipeline
        self._kept = kept
        self._places = places
        self._batch: SequenceBatch | None = None
        self._lookups: dict[Answering, PromptLookup] = {}

    def add(self, one: Answering) -> None:
        """Take over a request that has its first token."""
        self.all.append(one)
        self._end_complete()  # an answer of one token needs no place in the batch
        if len(self.all) > 1:
            try:
                for each in self.all:
                    self._into_batch(each)
            except BaseException as error:
                self._fail_all(error)

    def end_stopped(self) -> None:
        """End those whose time is over, or whose caller wants no answer any more."""
        for one in list(self.all):
            if (reason := one.stop_reason()) is not None:
                self._leave(one)
                one.end(reason)

    def step(self) -> None:
        """The next token of every answer; of one that guesses, those that came true."""
        if not self.all:
            return
        begin = time.perf_counter()
        try:
            alone = self.all[0].sequence
            if alone is not None:
                self._step_alone(self.all[0], alone)
            else:
                self._step_batch()
        except BaseException as error:  # the engine failed, and with it every answer that had a part in the run
            self._fail_all(error)
            return
        spent = (time.perf_counter() - begin) * 1e3
        for one in self.all:
            one.watch.add("decode", spent)
        self._end_complete()

    def _step_alone(self, one: Answering, sequence: TokenSequence) -> None:
        latest = one.transcript.tokens[-1]
        guess = self._guess(one)
        prediction = sequence.step(self._pipeline.bundle.embed(np.asarray([latest, *guess])))
        one.sampler.look()
        likeliest, true = prediction.tokens().tolist(), 0
        for position, token in enumerate(likeliest):
            taken = one.sampler.take(token, partial(prediction.row, position))
            one.push(taken)
            if guess[position : position + 1] != [taken]:
                break
            true += 1
            if one.transcript.reason is not None:
                break
        if true < len(guess):
            sequence.rewind(sequence.length - (len(guess) - true))
        one.guessed(len(guess), true)

    def _guess(self, one: Answering) -> list[int]:
        """Tokens that may come next: those that a structure leaves no choice about, or where the request guesses."""
        options, said = one.request.options, one.transcript.tokens
        room = min(SELECTED_AT_ONCE - 1, one.request.room - len(said) - 1)
        if forced := one.sampler.forced(room):
            return forced
        most = min(options.speculate, room)
        if most <= 0 or options.temperature > 0:
            return []
        if one not in self._lookups:
            self._lookups[one] = PromptLookup([*one.request.ids.tolist(), *said])
        lookup = self._lookups[one]
        lookup.extend(said[lookup.length - len(one.request.ids) :])
        return lookup.guess(most)

    def _step_batch(self) -> None:
        batch = self._rows()
        latest = np.asarray([one.transcript.tokens[-1] for one in self.all])
        prediction = batch.step(self._pipeline.bundle.embed(latest))
        for one in self.all:
            with suppress(GarPromptError):  # raised again where its token is taken, and is its own fault there
                one.sampler.look()
        likeliest = prediction.tokens().tolist()
        for row, one in enumerate(list(self.all)):
            try:
                one.push(one.sampler.take(likeliest[row], partial(prediction.row, row)))
            except Exception as error:  # its own fault, and nobody else's
                self._leave(one, keep=False)
                one.fail(error)

    def _into_batch(self, one: Answering) -> None:
        if isinstance(one.sequence, InPlaceSequence):
            self._rows().join(one.sequence)
            one.sequence = None

    def _rows(self) -> SequenceBatch:
        if self._batch is None:
            self._batch = SequenceBatch(self._pipeline.decoder, self._places)
        return self._batch

    def _end_complete(self) -> None:
        for one in [one for one in self.all if one.transcript.reason is not None]:
            self._leave(one)
            one.end()

    def _leave(self, one: Answering, *, keep: bool = True) -> None:
        """Let go of an answer; its sequence is kept for whoever goes on from it."""
        row = self.all.index(one)
        sequence = one.sequence
        if sequence is None:
            batch = self._rows()
            size = self._pipeline.decoder.planned_bytes(batch.lengths[row])
            if keep and self._kept.has_room(size, besides=one.planned_bytes):
                sequence = self._copied(row, one.request.positions)
            batch.leave(row)
            self.all[row] = self.all[-1]  # as the batch did
            self.all.pop()
        else:
            self.all.remove(one)
        self._lookups.pop(one, None)
        kept = None
        if sequence is not None:
            request = one.request
            held = np.concatenate([request.ids, np.asarray(one.transcript.tokens, np.int64)])
            ids = held[: sequence.length]
            kept = KeptSequence(request.picture.key, request.regions.digest, ids, sequence)
        self._kept.settle(one.planned_bytes, kept)

    def _copied(self, row: int, positions: int) -> TokenSequence | None:
        """A row of the batch as a sequence of its own; None where there is no memory for it."""
        try:
            sequence = start_sequence(self._pipeline.decoder, positions)
            assert isinstance(sequence, InPlaceSequence)  # only these are batched
            self._rows().copy_to(sequence, row, self._rows().lengths[row])
        except GarBackendError:
            return None
        return sequence

    def _fail_all(self, error: BaseException) -> None:
        """Nobody knows what a run that failed has left in the caches."""
        failed, self.all, self._batch = self.all, [], None
        self._lookups.clear()
        for one in failed:
            self._kept.settle(one.planned_bytes, None)
            one.fail(error)
