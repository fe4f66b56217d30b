"""Small videos whose region is known in every frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT, SIDE = 160, 120, 40
LEFT, UPPER = 20, 30  # of the square in the first frame


def square_frame(step: int, shown: bool = True) -> np.ndarray:
    """RGB [120,160,3]: a red square on grey, a pixel further right with each step."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    if shown:
        frame[square_mask(step)] = (220, 0, 0)
    return frame


def square_mask(step: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[UPPER : UPPER + SIDE, LEFT + step : LEFT + step + SIDE] = True
    return mask


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float = 30) -> Path:
    """An AVI of JPEGs."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def cut_short(path: Path, share: float = 0.5) -> None:
    """Leave the beginning of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


class FakeCamera:
    """`cv2.VideoCapture` of a camera that gives these frames (RGB) and is then unplugged."""

    def __init__(self, frames: Iterable[np.ndarray]) -> None:
        self._frames = iter(frames)
        self._frame: np.ndarray | None = None
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's)
        return True

    def get(self, what: int) -> float:
        return 0.0 if what != cv2.CAP_PROP_FRAME_COUNT else -1.0

    def grab(self) -> bool:
        self._frame = next(self._frames, None)
        return self._frame is not None

    def retrieve(self) -> tuple[bool, np.ndarray]:
        assert self._frame is not None
        return True, cv2.cvtColor(self._frame, cv2.COLOR_RGB2BGR)

    def release(self) -> None:
        self.released = True
