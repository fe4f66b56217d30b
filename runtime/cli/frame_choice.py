"""Which frames of a video are asked about."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import typer

from gar_edge.runtime.video.capture import TimedFrame


@dataclass
class FrameChoice:
    """Every Nth frame, or so many a second; by default all of a live video, one a second else.

    realtime: a file is played at its own pace, and frames that come while an answer is made are left out.
    `typer.BadParameter` where both `every` and `fps` are given.
    """

    every: int | None
    fps: float | None
    realtime: bool
    _ticks: int = field(default=-1, init=False)
    _seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if self.every is not None and self.fps is not None:
            raise typer.BadParameter("--every and --fps both say which frames are asked about; drop one")

    @property
    def given(self) -> bool:
        """Whether the caller said which."""
        return self.every is not None or self.fps is not None

    def period(self, pace: float) -> float:
        """Seconds between frames that are asked about, of a live video with so many a second."""
        return 1 / self.fps if self.fps is not None else (self.every or 1) / pace

    def takes(self, frame: TimedFrame, dropping: bool) -> bool:
        """To be called with each frame in turn. dropping: whether frames are left out where answers take longer."""
        if self.every is not None:
            return frame.number % self.every == 0
        if self.fps is None and dropping:
            return True
        ticks = math.floor(frame.seconds * (self.fps or 1.0) + 1e-6)
        # A recording's clock that jumps back begins anew: else nothing would be asked until it has caught up.
        fresh = ticks > self._ticks or frame.seconds < self._seconds
        self._ticks = ticks if fresh else self._ticks
        self._seconds = frame.seconds
        return fresh
