"""`gar-run VIDEO`: the same question about frame after frame."""

from __future__ import annotations

import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import typer

from gar_edge.runtime.cli.asking import Asking
from gar_edge.runtime.cli.loading import EngineSettings
from gar_edge.runtime.cli.region_options import Regions, cut_out, read_arguments
from gar_edge.runtime.cli.streams import to_json
from gar_edge.runtime.cli.terminal import Interrupted
from gar_edge.runtime.errors import GarError, GarPromptError
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.choosing import Choice
from gar_edge.runtime.images.shape import Mask, pixel_box
from gar_edge.runtime.live import Frame, LiveAnswers
from gar_edge.runtime.video.capture import Video, VideoFrame, is_live
from gar_edge.runtime.video.following import Follower
from gar_edge.runtime.video.frame_masks import FrameMasks

T = TypeVar("T")
_CHECKED = ("value", "choices", "margin", "entropy", "confidence", "logprobs")  # of an answer, where it has them
Ask = Callable[[VideoFrame, Mapping[int, Mask]], None]


@dataclass
class FrameChoice:
    """Which frames are asked about: every Nth, or so many a second; by default all of a live video, one a second else.

    realtime: a file is played at its own pace, and frames that come while an answer is made are left out.
    `typer.BadParameter` where both `every` and `fps` are given.
    """

    every: int | None
    fps: float | None
    realtime: bool
    _ticks: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        if self.every is not None and self.fps is not None:
            raise typer.BadParameter("--every and --fps both say which frames are asked about; drop one")

    def takes(self, frame: VideoFrame, dropping: bool) -> bool:
        """To be called with each frame in turn. dropping: whether frames are left out where answers take longer."""
        if self.every is not None:
            return frame.number % self.every == 0
        if self.fps is None and dropping:
            return True
        ticks = math.floor(frame.seconds * (self.fps or 1.0) + 1e-6)
        fresh = ticks > self._ticks
        self._ticks = max(ticks, self._ticks)
        return fresh


class Lines:
    """A line on stdout for each frame that was asked about, as text or as JSON."""

    def __init__(self, as_json: bool) -> None:
        self.answered = 0
        self._as_json = as_json

    def answer(self, frame: VideoFrame, masks: Mapping[int, Mask], answer: Answer) -> None:
        """What was said about the frame's regions."""
        self.answered += 1
        fields = {
            "boxes": {number: pixel_box(mask) for number, mask in masks.items()},
            "text": answer.text,
            "finish_reason": answer.finish_reason,
            "milliseconds": round(answer.timings_ms.total, 3),
            **{name: value for name, value in answer.to_json().items() if name in _CHECKED},
        }
        unsure = isinstance(answer, Choice) and answer.best is None
        self._print(frame, fields, "(none is likely enough)" if unsure else " ".join(answer.text.split()))

    def lost(self, frame: VideoFrame, numbers: Sequence[int]) -> None:
        """Which regions the frame does not show, so that nothing was asked."""
        self._print(frame, {"lost": numbers}, f"(not seen: region {', '.join(map(str, numbers))})")

    def _print(self, frame: VideoFrame, fields: dict[str, Any], text: str) -> None:
        about = {"frame": frame.number, "time": round(frame.seconds, 3)}
        line = to_json(about | fields, sys.stdout) if self._as_json else f"{frame.seconds:8.2f} s  {text}"
        sys.stdout.write(f"{line}\n")  # in one piece: the answering thread writes, too
        sys.stdout.flush()


def watch_video(source: str, choice: FrameChoice, asking: Asking, engine: EngineSettings, *, as_json: bool) -> None:
    """Ask about a video's frames until it ends; what is live ends by Ctrl-C, or by an error."""
    _silence_opencv()
    regions = read_arguments(asking.arguments, source, asking.question is None)
    gar = None
    if is_live(source):
        with Video(source):  # no camera: no need for a model. Afterwards this one's frames would be old
            pass
        gar = engine.load()
    with Video(source, choice.realtime) as video:
        frames = iter(video)
        first = next(frames)
        drawn, marked = _apart(regions)
        cut = cut_out(drawn, first.image, asking.segment)
        if gar is None:
            gar = engine.load()
        unnamed = gar.manifest.prompt.default_region
        follower = Follower(first, _numbered(cut, unnamed), _numbered(marked, unnamed))
        lines = Lines(as_json)
        dropping = video.live or choice.realtime
        try:
            with _answering(gar, asking, lines, dropping=dropping) as ask:
                _watch(first, frames, follower, lambda frame: choice.takes(frame, dropping), ask, lines)
        except GarPromptError as error:
            raise typer.BadParameter(str(error)) from None
        except Interrupted:
            if not video.live:
                raise
        print(f"{lines.answered} frames answered", file=sys.stderr)


def _watch(
    first: VideoFrame,
    others: Iterator[VideoFrame],
    follower: Follower,
    takes: Callable[[VideoFrame], bool],
    ask: Ask,
    lines: Lines,
) -> None:
    """Follow the regions through all frames, and ask about those that are taken and show all regions."""
    missing: list[int] = []
    for frame in itertools.chain((first,), others):
        if frame is not first:
            follower.follow(frame)
        if not takes(frame):
            continue
        masks = follower.masks(frame)
        before, missing = missing, [number for number in follower.numbers if number not in masks]
        if not missing:
            ask(frame, masks)
        elif missing != before:
            lines.lost(frame, missing)


@contextmanager
def _answering(gar: Gar, asking: Asking, lines: Lines, *, dropping: bool) -> Iterator[Ask]:
    """A way to ask: at once, or in a thread that takes the newest frame when it is done with another."""

    def at_once(frame: VideoFrame, masks: Mapping[int, Mask]) -> None:
        scene = gar.open(frame.image, max_tiles=asking.max_tiles)
        lines.answer(frame, masks, scene.stream(asking.question, masks, options=asking.options).finish())

    def answered(asked: Frame, outcome: Answer | GarError) -> None:
        if isinstance(outcome, GarError):
            raise outcome
        frame, masks = asked.tag
        lines.answer(frame, masks, outcome)

    if not dropping:
        yield at_once
        return
    with LiveAnswers(gar, answered, options=asking.options, max_tiles=asking.max_tiles) as live:
        yield lambda frame, masks: live.offer(Frame(frame.image, masks, asking.question, tag=(frame, masks)))
        live.finish()


def _apart(regions: Regions) -> tuple[Regions, dict[int | None, FrameMasks]]:
    """The regions of the first frame, and those with a mask for each."""
    marked = {number: given.region for number, given in regions.items() if isinstance(given.region, FrameMasks)}
    return {number: given for number, given in regions.items() if number not in marked}, marked


def _numbered(regions: Mapping[int | None, T], unnamed: int) -> dict[int, T]:
    return {unnamed if number is None else number: region for number, region in regions.items()}


def _silence_opencv() -> None:
    """Its remarks on files and cameras would stand between our lines; what matters is raised."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    from cv2.utils import logging

    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
