"""One answer: prompt, features, prefill, tokens, text, each when its turn comes."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.answer import Answer, FinishReason, Reuse, StopWatch
from gar_edge.runtime.backend import Buffer
from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.images import mask_box
from gar_edge.runtime.preprocess import Tiles, cut_mask
from gar_edge.runtime.reuse import Kept, encode_tiles
from gar_edge.runtime.sampling import Options, Sampler
from gar_edge.runtime.sequence import TokenSequence
from gar_edge.runtime.text import TextStream

if TYPE_CHECKING:
    from gar_edge.runtime.gar import Gar


class AnswerStream:
    """An answer in the making: iterating yields text as soon as it is certain."""

    def __init__(
        self,
        gar: Gar,
        tiles: Tiles,
        scene: int,
        question: str | None,
        regions: Mapping[int, NDArray[np.bool_]],
        options: Options,
        watch: StopWatch,
        preprocess_ms: float,
    ) -> None:
        self._gar = gar
        self._tiles = tiles
        self._scene = scene
        self._regions = regions
        self._options = options
        self._watch = watch
        self._preprocess_ms = preprocess_ms
        self._ids = gar.prompts.build(question, list(regions), len(tiles.pixels))
        longest, context = gar.decoder.longest, gar.manifest.dimensions.context
        if len(self._ids) >= longest:
            holder, larger = "the model takes", ""
            if longest < context:
                holder, larger = "the engine holds", f", or build another with gar-engine build --capacity {context}"
            raise GarPromptError(
                f"the prompt has {len(self._ids)} tokens, {holder} {longest}; lower --max-tiles (max_tiles){larger}"
            )
        self._room = min(options.max_new_tokens, longest - len(self._ids))
        self._tokens: list[int] = []
        self._pieces: list[str] = []
        self._reason: FinishReason = "cancelled"  # until the end says otherwise
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
        return Answer(
            text="".join(self._pieces),
            tokens=tuple(self._tokens),
            finish_reason=self._reason,
            prompt_tokens=len(self._ids),
            grid=self._tiles.grid,
            timings_ms=self._timings,
            model=self._gar.manifest.name,
            reuse=self._reuse,
        )

    def _generate(self) -> Generator[str]:
        text = TextStream(self._gar.bundle.tokenizer, self._options.stop)
        reason: FinishReason = "length"
        try:
            for token in self._generate_tokens():
                self._tokens.append(token)
                if token in self._gar.manifest.prompt.stop_tokens:
                    reason = "stop"
                    break
                yield from self._piece(text.push(token))
                if text.stopped:
                    reason = "stop"
                    break
            yield from self._piece(text.finish())
            self._reason = reason
        except _Cancelled:
            yield from self._piece(text.finish())
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._timings = self._watch.timings(self._preprocess_ms)

    def _piece(self, text: str) -> Iterator[str]:
        if text:
            self._pieces.append(text)
            yield text

    def _generate_tokens(self) -> Iterator[int]:
        sampler = Sampler(self._options)
        bundle = self._gar.bundle
        sequence, embeds = self._begin()
        try:
            with self._watch.stage("prefill"):
                logits = sequence.prefill(embeds, self._check_cancelled)
            for count in range(1, self._room + 1):
                self._check_cancelled()
                token = sampler(logits)
                self._watch.mark("first_token")
                yield token
                if count < self._room:
                    with self._watch.stage("decode"):
                        logits = sequence.step(bundle.embed(token))
        finally:
            held = np.concatenate([self._ids, np.asarray(self._tokens, np.int64)])[: sequence.length]
            self._gar.kept.put(Kept(self._scene, self._regions, held, sequence))

    def _begin(self) -> tuple[TokenSequence, Buffer]:
        """A sequence, empty or holding the prompt's beginning, and the embeddings [S,C] of the rest of the prompt."""
        gar, prompt = self._gar, self._gar.manifest.prompt
        needed = len(self._ids) + self._room
        features_end = 1 + int(np.flatnonzero(np.isin(self._ids, [prompt.image_token, *prompt.replay_tokens]))[-1])
        kept = gar.kept.take()
        fits = kept is not None and kept.sequence.capacity >= needed
        common = kept.common(self._scene, self._regions, self._ids) if kept is not None and fits else 0
        if kept is not None and common >= features_end:
            kept.sequence.rewind(common)
            tiles = len(self._tiles.pixels)
            self._reuse = Reuse(0, tiles, len(self._ids) - common, common)
            embeds = gar.backend.empty((len(self._ids) - common, gar.manifest.dimensions.hidden), gar.decoder.dtype)
            embeds.write(gar.bundle.embed(self._ids[common:]))
            return kept.sequence, embeds
        if kept is not None and kept.sequence.capacity == gar.decoder.capacity_for(needed):
            kept.sequence.restart()
            return kept.sequence, self._embed()
        del kept  # its memory may be wanted now
        return gar.decoder.start(needed), self._embed()

    def _embed(self) -> Buffer:
        """The whole prompt's embeddings [S,C]: table rows, with tile and replayed features in their places."""
        gar, prompt = self._gar, self._gar.manifest.prompt
        with self._watch.stage("preprocess"):
            mask = cut_mask(self._regions, self._tiles.grid, gar.manifest.preprocess, len(prompt.regions))
        with self._watch.stage("encode"):
            pixels = self._tiles.pixels
            features, encoded = encode_tiles(
                gar.backend, gar.vision, gar.features, self._scene, pixels, mask, self._check_cancelled
            )
            self._reuse = Reuse(encoded, len(pixels) - encoded, len(self._ids), 0)
        with self._watch.stage("replay"):
            boxes = [mask_box(region) for region in self._regions.values()]
            replayed = gar.vision.replay(features, self._tiles.grid, boxes)
        with self._watch.stage("prefill"):
            hidden = gar.manifest.dimensions.hidden
            embeds = gar.backend.empty((len(self._ids), hidden), gar.decoder.dtype)
            embeds.write(gar.bundle.embed(self._ids))
            _place(embeds, self._ids, prompt.image_token, features.reshape(-1, hidden))
            for index, number in enumerate(self._regions):
                tokens = replayed.rows(index, index + 1).reshape(-1, hidden)
                _place(embeds, self._ids, prompt.replay_tokens[number], tokens)
        return embeds

    def _check_cancelled(self) -> None:
        if self._options.cancel is not None and self._options.cancel.is_set():
            raise _Cancelled


class _Cancelled(Exception):  # noqa: N818 - not an error: the caller's wish
    """The options' event was set."""


def _place(embeds: Buffer, ids: NDArray[np.int64], token: int, features: Buffer) -> None:
    """Put features [N,C] where `token` stands; its N places are one run, as the prompt builder made them."""
    begin = int(np.argmax(ids == token))
    embeds.rows(begin, begin + features.shape[0]).copy_from(features)
