"""An open clip: frames of a video, and what can be asked about regions in all of them. Experimental (docs/video.md)."""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.asking import Askable, region_numbers
from gar_edge.runtime.errors import GarImageError, GarMaskError
from gar_edge.runtime.generate.answer import StopWatch
from gar_edge.runtime.generate.clip_request import FrameRegion, OpenClip, OpenFrame, clip_request
from gar_edge.runtime.generate.options import DEFAULT, Options
from gar_edge.runtime.generate.request import OpenPicture, Wanted, mask_digest
from gar_edge.runtime.generate.scheduler import Scheduler
from gar_edge.runtime.generate.side_by_side import Asked
from gar_edge.runtime.images.loading import ImageLike, load_image
from gar_edge.runtime.images.preprocess import Tiles
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.regions.find import find_mask
from gar_edge.runtime.regions.kinds import RegionLike
from gar_edge.runtime.video.tracking import Tracker


@dataclass(frozen=True)
class ClipFrame:
    """A frame of a clip: RGB [H,W,3], its time in seconds, and what the model takes of it."""

    image: NDArray[np.uint8]
    seconds: float
    opened: OpenFrame
    known: set[bytes] = field(default_factory=set)  # digests of masks that were looked at: they are asked about again


class Followed:
    """A region of the first frame of a clip, followed by optical flow through the frames after it.

    Keep it for the clips that slide on from this one: it goes on from the last frame that it has seen. Frames must lie
    close enough in time for the flow, a few a second; of others give a mask for each.
    """

    def __init__(self, region: RegionLike) -> None:
        self._region = region
        self._tracker: Tracker | None = None
        self._seen: dict[int, Mask | None] = {}  # by the frame's key

    def masks(self, frames: Sequence[ClipFrame], name: str) -> list[Mask | None]:
        """A mask [H,W] for each frame, None where it is not seen; `GarMaskError` begins with `name`."""
        if self._tracker is None:
            first = frames[0]
            mask = find_mask(self._region, first.image, name=name)
            try:
                self._tracker = Tracker(first.image, mask)
            except GarMaskError as error:
                raise GarMaskError(f"{name}: {error}") from None
            self._seen = {first.opened.key: mask}
        keys = [frame.opened.key for frame in frames]
        if not self._seen.keys() & set(keys):
            raise GarMaskError(f"{name}: this follows a region of other frames; begin anew where the clip does")
        for frame in frames:
            if frame.opened.key not in self._seen:
                found = self._tracker.follow(frame.image)
                self._seen[frame.opened.key] = self._tracker.mask() if found else None
        self._seen = {key: self._seen[key] for key in keys}
        return [self._seen[key] for key in keys]


ClipRegion = Sequence[RegionLike | None] | NDArray[np.generic] | Followed


class Clip(Askable[ClipRegion]):
    """Frames of a video, ready for questions about regions in all of them; `Gar.open_clip` makes it.

    A region is given as what it is in each frame, one for each, None (or a mask [H,W] without a pixel) where the frame
    does not show it; or as `Followed`. Every frame is one tile under its own mask, which is encoded once: a clip that
    `slide` makes takes over what is known of the frames that stay.
    """

    def __init__(self, scheduler: Scheduler, keys: Iterator[int], frames: Sequence[ClipFrame]) -> None:
        """keys: numbers for frames and clips, under which work on them is kept."""
        super().__init__(scheduler, opening_ms=0.0)
        self.frames = tuple(frames)
        self._keys = keys
        self.opened = OpenClip(tuple(frame.opened for frame in frames), next(keys))
        weakref.finalize(self.opened, scheduler.kept.drop, self.opened.key)

    @classmethod
    def opening(
        cls,
        scheduler: Scheduler,
        keys: Iterator[int],
        images: Sequence[ImageLike],
        times: Sequence[float] | None,
        *,
        before: Sequence[ClipFrame] = (),
    ) -> Clip:
        """A clip of the frames `before`, which are open already, and of these behind them."""
        begin = time.perf_counter()
        spec, vision, kept = scheduler.pipeline.manifest.preprocess, scheduler.pipeline.vision, scheduler.kept
        frames = list(before)
        for image, seconds in zip(images, _times(images, times, before), strict=True):
            pixels = load_image(image)
            if frames and pixels.shape != frames[0].image.shape:
                (height, width), (high, wide) = pixels.shape[:2], frames[0].image.shape[:2]
                raise GarImageError(f"frame {len(frames)} is {width}x{height}, the first {wide}x{high}")
            opened = OpenFrame(OpenPicture(vision.ready(Tiles.whole(pixels, spec)), next(keys)))
            weakref.finalize(opened, kept.drop, opened.key)
            frames.append(ClipFrame(pixels, seconds, opened))
        if not frames:
            raise GarImageError("a clip needs at least one frame")
        clip = cls(scheduler, keys, frames)
        clip._opening_ms = (time.perf_counter() - begin) * 1e3
        return clip

    @property
    def times(self) -> tuple[float, ...]:
        """Of the frames, in seconds."""
        return tuple(frame.seconds for frame in self.frames)

    def slide(self, images: Sequence[ImageLike], times: Sequence[float] | None = None) -> Clip:
        """The clip of as many frames that ends with these: as many of the oldest leave. This one stays as it is.

        `GarImageError` as in `Gar.open_clip`, and where a frame's time is not behind the last one's.
        """
        kept = self.frames[len(images) :] if len(images) < len(self.frames) else ()
        new = slice(max(0, len(images) - len(self.frames)), None)
        before = kept or self.frames[-1:]
        checked = _times(images, times, before)
        return Clip.opening(self._scheduler, self._keys, images[new], checked[new], before=kept)

    def prepare(self, question: str | None, regions: Mapping[int, ClipRegion], *, options: Options = DEFAULT) -> Asked:
        """As in `Askable`."""
        watch, pipeline = StopWatch(), self._scheduler.pipeline
        numbers = region_numbers(regions)
        pipeline.prompts.check(question, numbers)
        wanted = Wanted.of(pipeline, options, numbers)
        with watch.stage("preprocess"):
            found = {number: self._found(regions[number], f"region {number}") for number in numbers}
            shown = [
                {number: region for number, seen in found.items() if (region := seen[index]) is not None}
                for index in range(len(self.frames))
            ]
            marked = self.opened.mark(shown, pipeline)
        request = clip_request(pipeline, self.opened, numbers, shown, marked, question, wanted)
        return Asked(request, watch, self._take_opening())

    def _found(self, region: ClipRegion, name: str) -> list[FrameRegion | None]:
        """The region in each frame, None where it is not seen."""
        if isinstance(region, Followed):
            region = region.masks(self.frames, name)
        if isinstance(region, np.ndarray) and region.ndim != 3:
            raise GarMaskError(f"{name}: masks of a clip are [frames, height, width], not {list(region.shape)}")
        if isinstance(region, (str, bytes)) or not isinstance(region, (Sequence, np.ndarray)):
            raise GarMaskError(f"{name}: give a list with a mask for each frame, or Followed(mask of the first)")
        if len(region) != len(self.frames):
            raise GarMaskError(f"{name}: {len(region)} masks for {len(self.frames)} frames; None where it is not seen")
        return [
            _found_in(frame, one, f"{name} in frame {index}")
            for index, (frame, one) in enumerate(zip(self.frames, region, strict=True))
        ]


def _found_in(frame: ClipFrame, region: RegionLike | None, name: str) -> FrameRegion | None:
    if region is None or (isinstance(region, np.ndarray) and not region.any()):
        return None
    if isinstance(region, np.ndarray) and region.dtype == np.bool_ and region.shape == frame.image.shape[:2]:
        mask = np.asarray(region, np.bool_)
        if (digest := mask_digest(mask)) in frame.known:
            return FrameRegion(mask, digest)
    mask = find_mask(region, frame.image, name=name)
    digest = mask_digest(mask)
    frame.known.add(digest)
    return FrameRegion(mask, digest)


def _times(images: Sequence[ImageLike], times: Sequence[float] | None, before: Sequence[ClipFrame]) -> Sequence[float]:
    """A time for each frame, rising; without times the frames' numbers."""
    start = before[-1].seconds + 1.0 if before else 0.0
    if times is None:
        return [start + index for index in range(len(images))]
    if len(times) != len(images):
        raise GarImageError(f"{len(images)} frames have {len(times)} times; give one for each")
    known = [before[-1].seconds] if before else []
    for earlier, later in itertools.pairwise([*known, *times]):
        if not earlier < later:
            raise GarImageError(f"times of frames must rise, and {later:g} s comes behind {earlier:g} s")
    if not all(np.isfinite(times)):
        raise GarImageError("times of frames must be numbers of seconds")
    return times
