"""Detections and the image they were made from, by their stamps: a detector answers long after newer images came."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - an image, as it came
D = TypeVar("D")  # detections, as they came

SLOP = 1_000_000  # nanoseconds: a stamp that went through a float is another by some hundred
FEWEST, MOST = 10, 64  # images that are kept, whatever their age, and however young they are


class Pairing(Generic[I, D]):
    """A short queue of images, and one of detections whose image has not come yet. Threads may share it.

    limit: nanoseconds. So much later than a detection, by its stamp, an image shows that the detection's own will not
    come any more; and for so long images are kept. `dropped` counts what had no image.
    """

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        self._limit = limit
        self._images: deque[tuple[int, I]] = deque()
        self._waiting: deque[tuple[int, D]] = deque()
        self._lock = threading.Lock()

    def image(self, stamp: int, image: I) -> list[tuple[I, D]]:
        """Take in an image; the pairs that it completes, the oldest first. stamp: nanoseconds."""
        with self._lock:
            if self._images and stamp + self._limit < self._images[-1][0]:  # time began anew: another recording
                self.dropped += len(self._waiting)
                self._images.clear()
                self._waiting.clear()
            self._images = deque(pair for pair in self._images if pair[0] != stamp)
            self._images.append((stamp, image))
            while len(self._images) > MOST or (
                len(self._images) > FEWEST and self._images[0][0] + self._limit < self._images[-1][0]
            ):
                self._images.popleft()
            return self._pairs()

    def detections(self, stamp: int, detections: D) -> list[tuple[I, D]]:
        """Take in detections; the pair they complete, if their image is there."""
        with self._lock:
            self._waiting.append((stamp, detections))
            return self._pairs()

    def _pairs(self) -> list[tuple[I, D]]:
        pairs: list[tuple[I, D]] = []
        left: deque[tuple[int, D]] = deque()
        newest = self._images[-1][0] if self._images else None
        for stamp, detections in self._waiting:
            found = min(self._images, key=lambda pair: abs(pair[0] - stamp), default=None)
            if found is not None and abs(found[0] - stamp) <= SLOP:
                pairs.append((found[1], detections))
            elif newest is not None and stamp + self._limit < newest:
                self.dropped += 1
            else:
                left.append((stamp, detections))
        while len(left) > FEWEST:
            left.popleft()
            self.dropped += 1
        self._waiting = left
        return pairs
