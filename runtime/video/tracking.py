"""A region followed from frame to frame by sparse optical flow (Lucas and Kanade 1981, in Bouguet's pyramids).

Corners inside the region are followed; the motion most of them agree on (shift, scale and rotation in the picture's
plane) moves the mask. It is fitted from a key frame, not from the frame before, so that errors do not add up with every
frame; a new key frame is taken when half of the corners are gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.images.shape import Mask

Corners = NDArray[np.float32]  # [n,2]: x, y
Motion = NDArray[np.float64]  # [2,3]: similarity

LONGEST = 640  # pixels: larger frames are followed at this size
MOST_CORNERS, LEAST_CORNERS = 100, 4
QUALITY, SPACING = 0.01, 3  # of the best corner, pixels
OUTLINE_MARGIN = 2  # pixels around the region whose corners count too: those of its own outline
RETURN = 1.0  # pixels by which a corner that is followed back may miss its place
AGREEMENT = 0.3  # of the corners must be found again and share the motion
MISFIT = 2.0  # pixels that a corner may lie off the shared motion
STEP = 1.5  # most growth, or shrinking, of the region between two frames it is seen in


@dataclass(frozen=True)
class _Key:
    """A frame from which motions are fitted.

    motion: of the region, from the first frame to it. corners [n,2]: their places in it. enough: if fewer are left, it
    is time for another key frame.
    """

    motion: Motion
    corners: Corners
    enough: int


class Tracker:
    """Where a region of the first frame is in those after it."""

    def __init__(self, image: NDArray[np.uint8], mask: Mask) -> None:
        """The RGB frame [H,W,3] and the region's mask [H,W]; `GarMaskError` where nothing in it can be followed."""
        self._mask = mask
        self._shrink = min(1.0, LONGEST / max(image.shape[:2]))
        self._seen = self._small(image)
        self._motion: Motion = np.eye(2, 3)  # from the first frame to the one it was last seen in
        self._key = self._key_frame()
        self._corners = self._key.corners
        if len(self._corners) < LEAST_CORNERS:
            raise GarMaskError("nothing in it can be followed: it has no corners; give a mask for each frame (--masks)")

    def follow(self, image: NDArray[np.uint8]) -> bool:
        """Find the region in the next frame, of the same size; False where it is not seen.

        What is not seen is looked for near its last place again.
        """
        frame = self._small(image)
        corners, found = self._flow(frame)
        step, agreeing = _shared_motion(self._key.corners[found], corners[found])
        if step is None or agreeing.sum() < AGREEMENT * len(corners):
            return False
        motion = _after(self._key.motion, step)
        if not 1 / STEP < _growth(motion) / _growth(self._motion) < STEP or not self._moved(motion).any():
            return False
        self._seen, self._motion = frame, motion
        self._corners = corners[found][agreeing]
        self._key = replace(self._key, corners=self._key.corners[found][agreeing])
        if len(self._corners) < self._key.enough:
            self._key = self._key_frame()
            self._corners = self._key.corners
        return True

    def mask(self) -> Mask:
        """Bool [H,W]: the region in the frame in which it was last seen."""
        return self._moved(self._motion)

    def _moved(self, motion: Motion) -> Mask:
        import cv2

        full = motion.copy()
        full[:, 2] /= self._shrink
        height, width = self._mask.shape
        return cv2.warpAffine(self._mask.astype(np.uint8), full, (width, height), flags=cv2.INTER_NEAREST) > 0

    def _small(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB [h,w,3]: grey would hide a thing that is as bright as its ground."""
        import cv2

        size = round(image.shape[1] * self._shrink), round(image.shape[0] * self._shrink)
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA)) if self._shrink < 1 else image

    def _key_frame(self) -> _Key:
        """The frame last seen, with the corners that the region has in it."""
        import cv2

        size = self._seen.shape[1::-1]
        region = cv2.resize(self.mask().astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        around = cv2.dilate(region, np.ones((2 * OUTLINE_MARGIN + 1,) * 2, np.uint8))
        channels = [np.ascontiguousarray(self._seen[..., channel]) for channel in range(3)]
        clearest = max(channels, key=lambda channel: cv2.cornerMinEigenVal(channel, 3)[around > 0].max(initial=0))
        found = cv2.goodFeaturesToTrack(clearest, MOST_CORNERS, QUALITY, SPACING, mask=around)
        corners = np.zeros((0, 2), np.float32) if found is None else np.asarray(found, np.float32).reshape(-1, 2)
        return _Key(self._motion, corners, max(LEAST_CORNERS, len(corners) // 2))

    def _flow(self, frame: NDArray[np.uint8]) -> tuple[Corners, NDArray[np.bool_]]:
        """Where the corners are in the frame, and which of them lead back to where they came from."""
        import cv2

        if not len(self._corners):
            return self._corners, np.zeros(0, np.bool_)
        ahead, found, _ = cv2.calcOpticalFlowPyrLK(self._seen, frame, self._corners, self._corners.copy())
        back, returned, _ = cv2.calcOpticalFlowPyrLK(frame, self._seen, ahead, self._corners.copy())
        near = np.linalg.norm(back - self._corners, axis=1) < RETURN
        return np.asarray(ahead, np.float32), near & (found[:, 0] > 0) & (returned[:, 0] > 0)


def _shared_motion(before: Corners, after: Corners) -> tuple[Motion | None, NDArray[np.bool_]]:
    """The similarity that most corners [n,2] share, None where there is none, and which of them [n] share it."""
    import cv2

    if len(before) >= LEAST_CORNERS:
        motion, agreeing = cv2.estimateAffinePartial2D(before, after, ransacReprojThreshold=MISFIT)
        if motion is not None:
            return np.asarray(motion), agreeing[:, 0] > 0
    return None, np.zeros(len(before), np.bool_)


def _after(first: Motion, then: Motion) -> Motion:
    """Both motions, one after the other."""
    whole = then @ np.vstack([first, (0, 0, 1)])
    return np.asarray(whole)


def _growth(motion: Motion) -> float:
    return float(np.hypot(motion[0, 0], motion[1, 0]))
