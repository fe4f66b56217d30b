"""A question about regions of a clip: frames of a video, a tile each, as the released code takes them.

Every frame is one tile: the whole picture at the tile's size, no thumbnail, encoded under its own mask. A region is
replayed from each frame that shows it, out of that frame's map alone (GAR's path for VideoRefer-Bench-Q).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gar_edge.runtime.bundle.manifest import Preprocess
from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.generate.request import OpenPicture, Regions, Replay, Request, Wanted, mask_digest
from gar_edge.runtime.images.preprocess import NO_GRID, cut_mask
from gar_edge.runtime.images.shape import Extent, Mask, mask_box
from gar_edge.runtime.images.tiling import Grid

FRAME_GRID = (1, 1)  # a frame's map is its one tile


@dataclass(frozen=True)
class FrameRegion:
    """A region in one frame: bool [H,W] with a pixel in it, and the digest that stands for it."""

    mask: Mask
    digest: bytes


FrameRegions = Mapping[int, FrameRegion]  # those that a frame shows, by number; the earlier wins where they overlap


@dataclass(frozen=True)
class MarkedFrame:
    """Regions of a frame: a digest of them all, their union in the tile [tile,tile] and its digest, their boxes."""

    digest: bytes
    union: Mask
    union_digest: bytes
    boxes: tuple[Extent, ...]


@dataclass
class OpenFrame:
    """A frame: a picture of one tile, under whose key its features are kept.

    marked: the regions that were asked about last; as a clip slides, frames that stay are not cut anew.
    """

    picture: OpenPicture
    marked: MarkedFrame | None = None

    @property
    def key(self) -> int:
        return self.picture.key

    def mark(self, regions: FrameRegions, spec: Preprocess, no_region: int) -> MarkedFrame:
        """The regions as the graphs take them; `no_region`: the number that stands for none."""
        digest = b"".join(bytes([number]) + region.digest for number, region in regions.items())
        if self.marked is None or self.marked.digest != digest:
            masks = {number: region.mask for number, region in regions.items()}
            union = (
                cut_mask(masks, NO_GRID, spec, no_region)[0] if masks else np.zeros((spec.tile, spec.tile), np.bool_)
            )
            boxes = tuple(mask_box(mask) for mask in masks.values())
            self.marked = MarkedFrame(digest, union, mask_digest(union), boxes)
        return self.marked


@dataclass(frozen=True)
class OpenClip:
    """Frames in their order, and the key under which sequences about them are kept. grid: of every frame's map."""

    frames: tuple[OpenFrame, ...]
    key: int
    grid: Grid = FRAME_GRID

    def source(self, tile: int) -> tuple[OpenPicture, int]:
        """As in `Opened`: each tile is all of a frame."""
        return self.frames[tile].picture, 0

    def mark(self, regions: Sequence[FrameRegions], pipeline: Pipeline) -> list[MarkedFrame]:
        """What each frame shows, as the graphs take it."""
        spec, no_region = pipeline.manifest.preprocess, len(pipeline.manifest.prompt.regions)
        return [frame.mark(here, spec, no_region) for frame, here in zip(self.frames, regions, strict=True)]


def clip_request(
    pipeline: Pipeline,
    clip: OpenClip,
    numbers: Sequence[int],
    regions: Sequence[FrameRegions],
    marked: Sequence[MarkedFrame],
    question: str | None,
    wanted: Wanted,
) -> Request:
    """A question about the regions of these numbers, in the prompt's order. marked: what `clip.mark` made of `regions`.

    `GarMaskError` for a region that no frame shows, `GarPromptError` where the prompt leaves no room for an answer.
    """
    shown = {number: [frame for frame, here in enumerate(regions) if number in here] for number in numbers}
    if unseen := [number for number, frames in shown.items() if not frames]:
        raise GarMaskError(f"region {unseen[0]}: none of the clip's frames shows it")
    ids, runs = pipeline.prompts.build_clip(question, shown, len(clip.frames))
    begins = {(number, frame): begin for number, frame, begin in runs}
    # The graph leaves the thumbnail out of its map; the frame itself stands in that place. Of a frame's keys 0 is for
    # its features, 1 for what is replayed from them.
    replays = tuple(
        Replay(
            (index, index), FRAME_GRID, one.boxes, tuple(begins[number, index] for number in here),
            (frame.key, 1, one.digest),
        )
        for index, (frame, here, one) in enumerate(zip(clip.frames, regions, marked, strict=True))
        if here
    )  # fmt: skip
    keys = tuple((frame.key, 0, one.union_digest) for frame, one in zip(clip.frames, marked, strict=True))
    union = np.stack([one.union for one in marked])
    digest = b";".join(one.digest for one in marked)
    return Request.made(
        pipeline, clip, Regions(tuple(numbers), (), union, keys, digest), replays, ids, wanted,
        remedy="take fewer frames (--frames)",
    )  # fmt: skip
