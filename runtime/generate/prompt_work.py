"""Requests before their first token: what earlier answers left is found, tiles are encoded, prompts prefilled."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.generate.answer import Reuse
from gar_edge.runtime.generate.answering import Answering
from gar_edge.runtime.generate.branches import Branches
from gar_edge.runtime.generate.kept import KeptSequence, KeptWork
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.generate.request import OpenPicture, Replay, TileKey
from gar_edge.runtime.model.start import start_sequence


class PromptWork:
    """`all`: those that have begun, and have not said anything; those that are live first.

    A request with choices is answered here: what they are scored by is more of its prompt.
    """

    def __init__(self, pipeline: Pipeline, kept: KeptWork) -> None:
        self.all: list[Answering] = []
        self.pipeline = pipeline
        self._kept = kept

    def begin(self, one: Answering) -> None:
        """Find what earlier answers left: the beginning of the prompt in a sequence, or else tiles and memory."""
        request = one.request
        tiles = request.regions.tiles
        if (found := self._kept.take(request)) is not None:
            one.sequence, common = found
            one.sequence.rewind(common)
            one.reuse = Reuse(0, len(tiles), len(request.ids) - common, common)
        else:
            awaited = {key for other in self.all for key in other.missing}
            for tile, key in enumerate(tiles):
                if (features := self._kept.tile(key)) is not None:
                    one.features[key] = features
                else:
                    one.missing[key] = tile
            if self.pipeline.decoder.fixed:
                capacity = self.pipeline.decoder.capacity_for(request.positions)
                one.sequence = self._kept.take_spare(capacity, one.planned_bytes)
            fresh = len(one.missing.keys() - awaited)
            one.reuse = Reuse(fresh, len(tiles) - fresh, len(request.ids), 0)
        behind = sum(other.live for other in self.all) if one.live else len(self.all)
        self.all.insert(behind, one)

    def end_stopped(self) -> None:
        """End those whose time is over, or whose caller wants no answer any more."""
        for one in list(self.all):
            if (reason := one.stop_reason()) is not None:
                self._leave(one)
                one.end(reason)

    def advance(self) -> Answering | None:
        """One run of the engine for the first in the line, and for others as far as it serves them too.

        Returns a request whose prompt is in its sequence now, and which has its first token and wants more.
        """
        if not self.all:
            return None
        first = self.all[0]
        if first.missing:
            wanted = self._next_tiles()
            try:
                self._encode(wanted)
            except BaseException as error:  # whoever had a part in the run is told; the loop goes on for the others
                for one in dict.fromkeys(one for one, _ in wanted.values()):
                    self._leave(one)
                    one.fail(error)
            return None
        try:
            if first.branches is None:
                self._prefill(first)
            else:
                self._score(first, first.branches)
        except BaseException as error:
            first.sequence = None  # nobody knows what a run that failed has left in it
            self._leave(first)
            first.fail(error)
            return None
        if first.branches is not None:
            if first.branches.done:
                self._leave(first)
                first.end("stop")
            return None
        if first.embeds is None or first.prefilled < first.embeds.shape[0]:
            return None
        self.all.remove(first)
        first.embeds, first.features = None, {}
        return first

    def _encode(self, wanted: dict[TileKey, tuple[Answering, int]]) -> None:
        """Missing tiles, of several pictures if need be, in one run."""
        begin = time.perf_counter()
        pixels = self._pixels(list(wanted.values()))
        masks = np.stack([one.request.regions.masks[tile] for one, tile in wanted.values()])
        made = self.pipeline.vision.encode(pixels, masks)
        spent = (time.perf_counter() - begin) * 1e3
        served = [one for one in self.all if one.missing.keys() & wanted.keys()]
        for row, key in enumerate(wanted):
            features = made.rows(row, row + 1)  # a view: tiles of one run share its memory, of a few tiles at most
            self._kept.put_tile(key, features)
            for one in served:
                if one.missing.pop(key, None) is not None:
                    one.features[key] = features
        for one in served:
            one.watch.add("encode", spent)

    def _pixels(self, wanted: Sequence[tuple[Answering, int]]) -> Buffer | NDArray[np.uint8]:
        """Tiles [T,3,h,w], each of a request: cut by the engine, or by the host when their pictures were opened."""
        sources = [(one, *one.request.picture.source(tile)) for one, tile in wanted]
        if not self.pipeline.vision.cuts:
            return np.stack([picture.tiles.pixels[tile] for _, picture, tile in sources])
        return self.pipeline.vision.cut(
            [(self._taken(one, picture), picture.tiles.windows[tile]) for one, picture, tile in sources]
        )

    def _taken(self, one: Answering, picture: OpenPicture) -> Buffer:
        """A picture in the engine's memory: the one that is there already, or one taken there now."""
        key = picture.taken
        taken = one.features.get(key)
        if taken is None:
            taken = self._kept.tile(key)
        if taken is None:
            taken = self.pipeline.vision.take(picture.tiles)
            self._kept.put_tile(key, taken)
        one.features[key] = taken  # for the tiles of its next runs, whatever is kept meanwhile
        return taken

    def _next_tiles(self) -> dict[TileKey, tuple[Answering, int]]:
        """As many missing tiles as a run takes, by key, each with a request that needs it and its number there."""
        wanted: dict[TileKey, tuple[Answering, int]] = {}
        for one in self.all:
            for key, tile in one.missing.items():
                if len(wanted) == self.pipeline.vision.at_once:
                    return wanted
                wanted.setdefault(key, (one, tile))
        return wanted

    def _prefill(self, one: Answering) -> None:
        """The next chunk of a prompt; behind the last one, the first token."""
        if one.embeds is None:
            one.embeds = self._embed(one)
        if one.sequence is None:
            one.sequence = start_sequence(self.pipeline.decoder, one.request.positions)
        with one.watch.stage("prefill"):
            end = min(one.prefilled + self.pipeline.decoder.chunk, one.embeds.shape[0])
            prediction = one.sequence.extend(one.embeds.rows(one.prefilled, end))
            one.prefilled = end
            if end == one.embeds.shape[0] and one.request.wanted.branches:
                one.branches = Branches(self.pipeline, one.request, prediction.row(0))
            elif end == one.embeds.shape[0]:
                one.sampler.look()
                token = one.sampler.take(int(prediction.tokens()[0]), lambda: prediction.row(0))
                one.watch.mark("first_token")
                one.push(token)

    def _score(self, one: Answering, branches: Branches) -> None:
        """The next of its choices."""
        assert one.sequence is not None  # it holds the prompt
        with one.watch.stage("decode"):
            branches.advance(one.sequence)
        one.watch.mark("first_token")

    def _embed(self, one: Answering) -> Buffer:
        """Embeddings [S,C] of what is to be prefilled, tile and replayed features in their places."""
        request, image_token = one.request, self.pipeline.manifest.prompt.image_token
        if one.sequence is not None and one.sequence.length:
            with one.watch.stage("prefill"):
                return self.pipeline.embed(request.ids[one.sequence.length :])
        with one.watch.stage("replay"):
            tiles = tuple(range(len(request.regions.tiles)))
            features = self._gathered(one, tiles)
            replayed = [
                self._replayed(one, replay, features if replay.tiles == tiles else None) for replay in request.replays
            ]
        with one.watch.stage("prefill"):
            places = {int(np.argmax(request.ids == image_token)): features}
            for replay, regions in zip(request.replays, replayed, strict=True):
                places |= {begin: regions.rows(row, row + 1) for row, begin in enumerate(replay.begins)}
            return self.pipeline.embed(request.ids, places)

    def _replayed(self, one: Answering, replay: Replay, features: Buffer | None) -> Buffer:
        """Replayed features [R,P,C]. features: of its tiles, where they lie together already."""
        if replay.key is not None and (kept := self._kept.tile(replay.key)) is not None:
            return kept
        if features is None:
            features = self._gathered(one, replay.tiles)
        made = self.pipeline.vision.roi_replay(features, replay.grid, replay.boxes)
        if replay.key is not None:
            self._kept.put_tile(replay.key, made)
        return made

    def _gathered(self, one: Answering, tiles: Sequence[int]) -> Buffer:
        """Features [T,P,C] of some of a request's tiles."""
        keys = [one.request.regions.tiles[tile] for tile in tiles]
        like = one.features[keys[0]]
        features = self.pipeline.backend.empty((len(keys), *like.shape[1:]), like.dtype)
        for row, key in enumerate(keys):
            features.rows(row, row + 1).copy_from(one.features[key])
        return features

    def _leave(self, one: Answering) -> None:
        """Let go of a request that gets no answer; what its sequence holds already is kept."""
        self.all.remove(one)
        kept = None
        if one.sequence is not None and (one.sequence.fixed or one.sequence.length >= one.request.features_end):
            request, length = one.request, min(one.sequence.length, len(one.request.ids))
            kept = KeptSequence(request.picture.key, request.regions.digest, request.ids[:length], one.sequence)
        self._kept.settle(one.planned_bytes, kept)
