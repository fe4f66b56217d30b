"""Where the regions of a video are, frame by frame: followed from the first one, or marked in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gar_edge.runtime.errors import GarImageError, GarMaskError
from gar_edge.runtime.images.shape import Mask, match_mask
from gar_edge.runtime.video.capture import TimedFrame
from gar_edge.runtime.video.tracking import Tracker

PATIENCE = 1.0  # seconds for which a followed region may be out of sight


class FrameRegion(Protocol):
    """A region that is marked in every frame: a folder of masks, or a topic of a recording."""

    def of_frame(self, frame: TimedFrame) -> Mask:
        """Its mask at its own size, all false where the frame does not show it."""


class Follower:
    """The masks of regions, by number."""

    def __init__(self, first: TimedFrame, drawn: Mapping[int, Mask], marked: Mapping[int, FrameRegion]) -> None:
        """`drawn`: masks [H,W] of the first frame, to be followed. `GarMaskError` where nothing can be followed."""
        self._trackers = {number: _tracker(number, first, mask) for number, mask in drawn.items()}
        self._last_seen = dict.fromkeys(drawn, first)
        self._shape = first.image.shape if drawn else None
        self._marked = marked
        self.numbers = sorted([*drawn, *marked])

    def follow(self, frame: TimedFrame) -> None:
        """To be called with every frame but the first; `GarMaskError` where a region is out of sight for long.

        `GarImageError` where a region is followed into a frame of another size.
        """
        if self._shape is not None and frame.image.shape != self._shape:
            (height, width), (high, wide) = frame.image.shape[:2], self._shape[:2]
            raise GarImageError(f"frame {frame.number} is {width}x{height}, the first {wide}x{high}")
        for number, tracker in self._trackers.items():
            seen = self._last_seen[number].seconds
            if tracker.follow(frame.image):
                self._last_seen[number] = frame
            elif abs(frame.seconds - seen) > PATIENCE:
                raise GarMaskError(
                    f"region {number} was lost after {seen:.2f} s and not seen again for {PATIENCE:g} s; start anew "
                    "with the region where it is, or give a mask for each frame (--masks)"
                )

    def masks(self, frame: TimedFrame) -> dict[int, Mask]:
        """The masks [H,W] of those regions that are seen in a frame, the one that was followed last.

        Files of another size but the frame's shape are resized. `GarMaskError` where a file is missing or no mask.
        """
        found = {number: self._trackers[number].mask() for number, seen in self._last_seen.items() if seen is frame}
        height, width = frame.image.shape[:2]
        for number, masks in self._marked.items():
            try:
                mask = match_mask(masks.of_frame(frame), width, height)
            except GarMaskError as error:
                raise GarMaskError(f"region {number}: {error}") from None
            if mask.any():
                found[number] = mask
        return found


def _tracker(number: int, first: TimedFrame, mask: Mask) -> Tracker:
    try:
        return Tracker(first.image, mask)
    except GarMaskError as error:
        raise GarMaskError(f"region {number}: {error}") from None
