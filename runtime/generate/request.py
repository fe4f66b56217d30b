"""A question about regions of an open picture, ready to be answered: plain state on the host."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.generate.guide import Matcher
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.images.preprocess import Tiles, cut_mask
from gar_edge.runtime.images.shape import Extent, mask_box
from gar_edge.runtime.images.tiling import Grid

TileKey = tuple[int, int, bytes]  # scene, tile, digest of the tile's mask (and of what was replayed from it)


class Opened(Protocol):
    """What a question is about: the key under which work on it is kept, and the grid that the answer names."""

    @property
    def key(self) -> int: ...

    @property
    def grid(self) -> Grid: ...

    def source(self, tile: int) -> tuple[OpenPicture, int]:
        """The picture that one of a request's tiles is cut from, and which of that picture's it is."""
        ...


@dataclass(frozen=True)
class OpenPicture:
    """An open picture: its tiles, and the number of its scene, under which work on it is kept."""

    tiles: Tiles
    key: int

    @property
    def grid(self) -> Grid:
        return self.tiles.grid

    @property
    def taken(self) -> TileKey:
        """The key of the picture itself in the memory of an engine that cuts, beside those of its tiles."""
        return self.key, -1, b""

    def source(self, tile: int) -> tuple[OpenPicture, int]:
        """As in `Opened`: all tiles are its own."""
        return self, tile


@dataclass(frozen=True)
class Regions:
    """Regions of a question as the graphs take them.

    numbers: as the prompt names them, in its order. boxes: fractions of the picture, a row each; none of a clip, where
    each frame has its own. masks: their union by tile, bool [T,h,w]. tiles: the key of each tile under it. digest: of
    the regions' own masks and numbers.
    """

    numbers: tuple[int, ...]
    boxes: tuple[Extent, ...]
    masks: NDArray[np.bool_]
    tiles: tuple[TileKey, ...]
    digest: bytes

    @classmethod
    def of(cls, pipeline: Pipeline, picture: OpenPicture, masks: Mapping[int, NDArray[np.bool_]]) -> Regions:
        """masks: bool [H,W] by number; where they overlap the earlier one wins."""
        spec, no_region = pipeline.manifest.preprocess, len(pipeline.manifest.prompt.regions)
        union = cut_mask(masks, picture.grid, spec, no_region)
        return cls(
            numbers=tuple(masks),
            boxes=tuple(mask_box(mask) for mask in masks.values()),
            masks=union,
            tiles=tuple((picture.key, tile, mask_digest(mask)) for tile, mask in enumerate(union)),
            digest=b"".join(bytes([number]) + mask_digest(mask) for number, mask in masks.items()),
        )

    def all_at(self, box: Extent) -> Regions:
        """The same with one box for all of them."""
        digest = self.digest + repr(box).encode()  # another prompt's cache must not be taken for this one's
        return replace(self, boxes=(box,) * len(self.boxes), digest=digest)


@dataclass(frozen=True)
class Wanted:
    """How a question is to be answered, checked against the model.

    matcher: at the beginning of the structure that the answer must have, if any. branches: the tokens of each choice,
    where it is to be chosen.
    """

    options: Options
    matcher: Matcher | None = None
    branches: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, pipeline: Pipeline, options: Options, numbers: Sequence[int]) -> Wanted:
        """`GarPromptError` where no answer can be as it is wanted. numbers: of the regions that choices may name."""
        if options.choosing is not None:
            answer = pipeline.prompts.answer
            return cls(options, branches=tuple(answer(choice, numbers) for choice in options.choosing.choices))
        return cls(options, None if options.structure is None else pipeline.guide.matcher(options.structure))


@dataclass(frozen=True)
class Replay:
    """One run of the replay graph. tiles: of the request, which become the map, `grid`, behind the thumbnail's place.

    begins: where in the prompt the features of each of the boxes go. key: under which its result is kept, if it may be
    wanted again.
    """

    tiles: tuple[int, ...]
    grid: Grid
    boxes: tuple[Extent, ...]
    begins: tuple[int, ...]
    key: TileKey | None = None


@dataclass(frozen=True)
class Request:
    """A prompt's token ids [S] about regions of a picture, and `room`: how many tokens the answer may have."""

    picture: Opened
    regions: Regions
    replays: tuple[Replay, ...]
    ids: NDArray[np.int64]
    wanted: Wanted
    room: int
    features_end: int  # behind the last image or replay token of the prompt: from there on it is text

    @classmethod
    def of(
        cls, pipeline: Pipeline, picture: OpenPicture, regions: Regions, ids: NDArray[np.int64], wanted: Wanted
    ) -> Request:
        """About a picture; `GarPromptError` where the prompt leaves no room for an answer."""
        tokens = [pipeline.manifest.prompt.replay_tokens[number] for number in regions.numbers]
        begins = tuple(int(np.argmax(ids == token)) for token in tokens)
        replay = Replay(tuple(range(len(regions.tiles))), picture.grid, regions.boxes, begins)
        return cls.made(pipeline, picture, regions, (replay,), ids, wanted, remedy="lower --max-tiles (max_tiles)")

    @classmethod
    def made(
        cls,
        pipeline: Pipeline,
        picture: Opened,
        regions: Regions,
        replays: tuple[Replay, ...],
        ids: NDArray[np.int64],
        wanted: Wanted,
        *,
        remedy: str,
    ) -> Request:
        """From all its parts; `GarPromptError` where the prompt leaves no room for an answer, with the remedy."""
        longest = pipeline.decoder.longest
        context = pipeline.manifest.dimensions.context
        least = max(map(len, wanted.branches), default=1)
        if len(ids) + least > longest:
            holder, larger = "the model takes", ""
            if longest < context:
                holder, larger = "the engine holds", f", or build another with gar-engine build --capacity {context}"
            beside = f" and the longest choice {least}" if wanted.branches else ""
            raise GarPromptError(f"the prompt has {len(ids)} tokens{beside}, {holder} {longest}; {remedy}{larger}")
        last_image = int(np.flatnonzero(ids == pipeline.manifest.prompt.image_token)[-1])
        last_replayed = max(begin for replay in replays for begin in replay.begins)
        end = max(last_image + 1, last_replayed + pipeline.manifest.dimensions.tile_tokens)
        room = least if wanted.branches else min(wanted.options.max_new_tokens, longest - len(ids))
        return cls(picture, regions, replays, ids, wanted, room, end)

    @property
    def options(self) -> Options:
        return self.wanted.options

    @cached_property
    def positions(self) -> int:
        """Of the prompt and the longest answer."""
        return len(self.ids) + self.room


def mask_digest(mask: NDArray[np.bool_]) -> bytes:
    """Short bytes that stand for a mask, none for an empty one."""
    return hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest() if mask.any() else b""
