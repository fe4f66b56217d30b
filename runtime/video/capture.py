"""The frames of a video file, a camera or a network stream, in order."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarImageError
from gar_edge.runtime.files.addresses import is_web_picture, local_file, shown
from gar_edge.runtime.files.utf8 import is_utf8, utf8_name

SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
PROMISED = 0.9  # of the frames, and of the seconds, that a file announces: with less of both it was cut short
DROPPED_AFTER = 0.1  # seconds after which a frame is dropped, but for one in so many: a slow reader shall see something
KEPT_ONE_IN = 8


class TimedFrame(Protocol):
    """A frame of anything: its number from 0 on, its time in seconds since the first one, RGB uint8 [H,W,3]."""

    @property
    def number(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    @property
    def image(self) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class VideoFrame:
    """A frame: its number from 0 on, its time in seconds since the first one, RGB uint8 [H,W,3]."""

    number: int
    seconds: float
    image: NDArray[np.uint8]


def is_camera(source: str) -> bool:
    """Whether this is a camera's number, or its device."""
    return (source.isdecimal() and not Path(source).exists()) or source.startswith("/dev/video")


def is_live(source: str) -> bool:
    """Whether frames come at their own pace: from a camera, or from an address such as rtsp://…"""
    return is_camera(source) or "://" in local_file(source)


def names_video(source: str) -> bool:
    """Whether this is called like a video rather than a picture."""
    return (is_live(source) and not is_web_picture(source)) or Path(source).suffix.lower() in SUFFIXES


class Video:
    """A context manager; iterate over it once.

    realtime: a file is played at its own pace, and frames are dropped where the reader falls behind it.
    """

    def __init__(self, source: str, realtime: bool = False) -> None:
        """`GarImageError` where it cannot be opened."""
        import cv2

        self.source = shown(source)  # for messages: an address may hold a password
        self.live = is_live(source)
        self._realtime = realtime and not self.live
        source = local_file(source)
        if not self.live and not Path(source).is_file():
            raise GarImageError(f"{self.source}: no such video file")
        if self.live:
            if not is_utf8(source):  # OpenCV crashes on it
                raise GarImageError(f"{self.source}: not an address in UTF-8; percent-encode it")
            self._capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
        else:
            with utf8_name(Path(source)) as named:
                self._capture = cv2.VideoCapture(str(named))
            self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # phones film sideways, and say so in a tag
        if not self._capture.isOpened():
            raise GarImageError(
                f"camera {source}: cannot be opened; is it there, and free?"
                if is_camera(source)
                else f"{self.source}: not a video that can be decoded"
            )
        self._announced = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.pace = self._capture.get(cv2.CAP_PROP_FPS) or 30.0  # frames a second, as it says or as cameras have it

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[VideoFrame]:
        """At least one frame. `GarImageError` where it stops before its end, as a camera always does."""
        import cv2

        number, start, begin, stamp, shape = 0, 0.0, 0.0, 0.0, None
        while self._capture.grab():
            stamp = self._stamp(number)
            start = stamp if not number else start
            if not number or not self._realtime or self._in_time(number, begin + stamp - start):
                read, picture = self._capture.retrieve()
                if not read:
                    break
                shape = shape or picture.shape
                if picture.shape != shape:
                    raise GarImageError(f"{self.source}: frame {number} is of another size than the first")
                yield VideoFrame(number, stamp - start, np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8))
                if not number:  # what the reader prepares at the first frame is no delay
                    begin = time.monotonic()
            number += 1
        self._check_end(number, stamp - start)

    def _stamp(self, number: int) -> float:
        """The time of the frame that was grabbed, in seconds from any moment on: the container's, where it has one."""
        import cv2

        if self.live:
            return time.monotonic()
        stamp = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
        return stamp if stamp > 0 and math.isfinite(stamp) else number / self.pace

    @staticmethod
    def _in_time(number: int, due: float) -> bool:
        """Wait for the frame's moment; False where that is long gone and the frame may be left out."""
        early = due - time.monotonic()
        time.sleep(max(0.0, early))
        return early > -DROPPED_AFTER or number % KEPT_ONE_IN == 0

    def _check_end(self, frames: int, seconds: float) -> None:
        """Frames are counted as they come. What the header says of them is a guess in some formats, made of a length
        and a rate; it only tells, together with that length, whether the end is missing.
        """
        if not frames:
            raise GarImageError(f"{self.source}: gives no frame that can be decoded")
        if self.live:
            raise GarImageError(f"{self.source}: no frame came any more after {frames}; is it still connected?")
        if frames < PROMISED * self._announced and seconds < PROMISED * self._announced / self.pace:
            raise GarImageError(
                f"{self.source}: ends after {frames} of {self._announced:.0f} frames: damaged, or cut short"
            )
