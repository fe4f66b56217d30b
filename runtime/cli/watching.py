"""`gar-run VIDEO`: the same question about frame after frame of a video, a camera or a recording."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import typer

from gar_edge.runtime.cli.asking import Asking
from gar_edge.runtime.cli.frame_choice import FrameChoice
from gar_edge.runtime.cli.loading import EngineSettings
from gar_edge.runtime.cli.region_options import Regions, cut_out, read_arguments
from gar_edge.runtime.cli.report import Report, Said, check_out, open_sinks
from gar_edge.runtime.cli.terminal import Interrupted
from gar_edge.runtime.errors import GarError, GarImageError, GarPromptError
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.live import Frame, LiveAnswers
from gar_edge.runtime.recordings.bag import names_recording
from gar_edge.runtime.recordings.recording import Recording, TopicMasks
from gar_edge.runtime.video.capture import TimedFrame, Video, is_live
from gar_edge.runtime.video.following import Follower, FrameRegion
from gar_edge.runtime.video.frame_masks import FrameMasks

T = TypeVar("T")
Ask = Callable[[TimedFrame, Mapping[int, Mask]], None]


@dataclass(frozen=True)
class Watching:
    """What is watched, and where the answers go. topic, detections: of a recording. out: files beside stdout."""

    source: str
    choice: FrameChoice
    as_json: bool
    topic: str | None = None
    detections: str | None = None
    out: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if not self.recorded and (self.topic is not None or self.detections is not None):
            raise typer.BadParameter(f"--topic and --detections are for recordings, and {self.source} is none")
        if self.recorded and self.choice.realtime:
            raise typer.BadParameter("--realtime is for video files; every message of a recording is read")
        check_out(self.out, self.source)

    @property
    def recorded(self) -> bool:
        return names_recording(self.source)

    def open(self, regions: Regions) -> Video | Recording:
        """The frames, with what the regions need of a recording beside them."""
        if not self.recorded:
            return Video(self.source, self.choice.realtime)
        masks = [given.region.topic for given in regions.values() if isinstance(given.region, TopicMasks)]
        return Recording(Path(self.source), topic=self.topic, detections=self.detections, masks=masks)


@dataclass(frozen=True)
class Begun:
    """A loaded model, open frames, the regions as they were given, and where answers go."""

    gar: Gar
    frames: Video | Recording
    regions: Regions
    report: Report

    def period(self, watching: Watching) -> float:
        """Seconds between the frames that are asked about, where they come at their own pace."""
        assert isinstance(self.frames, Video)  # a recording waits for its reader
        return watching.choice.period(self.frames.pace)


@contextmanager
def begun(watching: Watching, asking: Asking, engine: EngineSettings) -> Iterator[Begun]:
    """What it takes to ask. A file is opened before the model is loaded; at the end answers are counted on stderr."""
    silence_opencv()
    regions = read_arguments(asking.arguments, watching.source, asking.question is None)
    gar = None
    if is_live(watching.source):
        with Video(watching.source):  # no camera: no need for a model. Afterwards this one's frames would be old
            pass
        gar = engine.load()
    with watching.open(regions) as frames:
        gar = gar or engine.load()
        with Report(watching.as_json, open_sinks(watching.out, watching.source)) as report:
            try:
                yield Begun(gar, frames, regions, report)
            except GarPromptError as error:
                raise typer.BadParameter(str(error)) from None
            except Interrupted:
                if not frames.live:
                    raise
            finally:
                if isinstance(frames, Recording) and (said := str(frames.counts)):
                    print(said, file=sys.stderr)
        print(f"{report.answered} frames answered", file=sys.stderr)


def watch_video(watching: Watching, asking: Asking, engine: EngineSettings) -> None:
    """Ask about frames until they end; what is live ends by Ctrl-C, or by an error."""
    with begun(watching, asking, engine) as begin:
        dropping = begin.frames.live or watching.choice.realtime
        follower, first, others = followed(begin.frames, begin.regions, asking, begin.gar)
        with _answering(begin, asking, late_after=begin.period(watching) if dropping else None) as ask:
            _watch(first, others, follower, lambda frame: watching.choice.takes(frame, dropping), ask, begin.report)


def followed(
    video: Video | Recording, regions: Regions, asking: Asking, gar: Gar
) -> tuple[Follower, TimedFrame, Iterator[TimedFrame]]:
    """Where the regions are: a follower, the first frame, and those after it."""
    frames: Iterator[TimedFrame] = iter(video)
    first = next(frames)
    marked = {
        number: given.region for number, given in regions.items() if isinstance(given.region, (FrameMasks, TopicMasks))
    }
    drawn = {number: given for number, given in regions.items() if number not in marked}
    cut = cut_out(drawn, first.image, asking.segment) if drawn else {}
    unnamed = gar.manifest.prompt.default_region
    by_frame: dict[int, FrameRegion] = dict(_numbered(marked, unnamed))
    return Follower(first, _numbered(cut, unnamed), by_frame), first, frames


def _watch(
    first: TimedFrame,
    others: Iterator[TimedFrame],
    follower: Follower,
    takes: Callable[[TimedFrame], bool],
    ask: Ask,
    report: Report,
) -> None:
    """Follow the regions through all frames, and ask about those that are taken and show all regions."""
    missing: list[int] = []
    for frame in itertools.chain((first,), others):
        if frame is not first:
            follower.follow(frame)
        if not takes(frame):
            continue
        try:
            masks = follower.masks(frame)
        except GarImageError as error:  # one bad message of a recording; whoever follows a region has ended already
            report.answers(frame, [Said(None, {}, error)])
            continue
        before, missing = missing, [number for number in follower.numbers if number not in masks]
        if not missing:
            ask(frame, masks)
        elif missing != before:
            report.lost(frame, missing)


@contextmanager
def _answering(begin: Begun, asking: Asking, *, late_after: float | None) -> Iterator[Ask]:
    """A way to ask: at once, or in a thread that takes the newest frame when it is done with another.

    late_after: for the thread, the seconds after which an answer is late.
    """
    gar, report = begin.gar, begin.report

    def at_once(frame: TimedFrame, masks: Mapping[int, Mask]) -> None:
        scene = gar.open(frame.image, max_tiles=asking.max_tiles)
        answer = scene.stream(asking.question, masks, options=asking.options).finish()
        report.answers(frame, [Said(asking.question, masks, answer)])

    def answered(asked: Frame, outcome: Answer | GarError) -> None:
        if isinstance(outcome, GarError):
            raise outcome
        frame, masks = asked.tag
        report.answers(frame, [Said(asking.question, masks, outcome, beside=delays(live))])

    if late_after is None:
        yield at_once
        return
    with LiveAnswers(gar, answered, options=asking.options, max_tiles=asking.max_tiles, late_after=late_after) as live:
        yield lambda frame, masks: live.offer(Frame(frame.image, masks, asking.question, tag=(frame, masks)))
        live.finish()


def delays(live: LiveAnswers) -> dict[str, int]:
    """Fields of a live answer's line: frames dropped so far, and how many answers in a row were late, this included."""
    return {"dropped": live.dropped, "late": live.late_in_a_row}


def _numbered(regions: Mapping[int | None, T], unnamed: int) -> dict[int, T]:
    return {unnamed if number is None else number: region for number, region in regions.items()}


def silence_opencv() -> None:
    """Its remarks on files and cameras would stand between our lines; what matters is raised."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    from cv2.utils import logging

    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
