"""`gar-run VIDEO --clip`: one question about several frames together."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import typer

from gar_edge.runtime.cli.asking import Asking
from gar_edge.runtime.cli.loading import EngineSettings
from gar_edge.runtime.cli.report import Report, Said
from gar_edge.runtime.cli.watching import Begun, Watching, begun, delays, followed
from gar_edge.runtime.clip import Clip
from gar_edge.runtime.errors import GarError
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.images.shape import Mask, pixel_box
from gar_edge.runtime.live import Frame, LiveAnswers
from gar_edge.runtime.video.capture import TimedFrame


@dataclass(frozen=True)
class Shown:
    """A frame that was taken, and the masks of the regions that it shows."""

    frame: TimedFrame
    masks: Mapping[int, Mask]


class _Ask(Protocol):
    def __call__(self, clip: Clip, shown: Sequence[Shown], numbers: Sequence[int]) -> None: ...


def watch_clip(watching: Watching, asking: Asking, engine: EngineSettings, *, frames: int) -> None:
    """Once about frames spread evenly over the whole video; with --every or --fps about the last ones of those, again
    with each further one.
    """
    if watching.detections is not None:
        raise typer.BadParameter("--clip needs regions that go through all frames; --detections has none, --masks has")
    if asking.max_tiles is not None:
        raise typer.BadParameter("--max-tiles is for pictures; a frame of a clip is one tile")
    with begun(watching, asking, engine) as begin:
        live = begin.frames.live or watching.choice.realtime
        if live and not watching.choice.given:
            raise typer.BadParameter(
                "a --clip of a live video needs --fps or --every, which say how far apart frames are"
            )
        taken = None if watching.choice.given else _evenly(watching, begin, frames)
        follower, first, others = followed(begin.frames, begin.regions, asking, begin.gar)
        window: deque[Shown] = deque(maxlen=frames)
        clip: Clip | None = None
        asked = False
        with _answering(begin, asking, late_after=begin.period(watching) if live else None) as ask:
            for frame in itertools.chain((first,), others):
                if frame is not first:
                    follower.follow(frame)
                if not (watching.choice.takes(frame, live) if taken is None else frame.number in taken):
                    continue
                window.append(Shown(frame, follower.masks(frame)))
                if taken is not None or len(window) < frames:
                    continue
                clip = _opened(begin, window) if clip is None else clip.slide([frame.image], [_seconds(window, clip)])
                asked |= _ask(ask, begin.report, clip, window, follower.numbers)
            if not asked and clip is None:
                _ask(ask, begin.report, _opened(begin, window), window, follower.numbers)


def _evenly(watching: Watching, begin: Begun, count: int) -> set[int]:
    """Numbers of so many frames, the first and the last among them, evenly in time. The video is read once for that."""
    with watching.open(begin.regions) as frames:
        times = [(frame.seconds, frame.number) for frame in frames]
    if len(times) <= count:
        return {number for _, number in times}
    first, last = times[0][0], times[-1][0]
    wanted = [first + (last - first) * place / max(1, count - 1) for place in range(count)]
    return {min(times, key=lambda time: abs(time[0] - at))[1] for at in wanted}


def _opened(begin: Begun, window: Sequence[Shown]) -> Clip:
    return begin.gar.open_clip([one.frame.image for one in window], _rising([one.frame.seconds for one in window]))


def _rising(times: Sequence[float]) -> list[float] | None:
    """The times, where they rise; a recording's clock that jumped back leaves the frames' numbers."""
    return list(times) if all(a < b for a, b in itertools.pairwise(times)) else None


def _seconds(window: Sequence[Shown], clip: Clip) -> float:
    """The newest frame's time, or, where its clock jumped back, one behind the clip's."""
    seconds = window[-1].frame.seconds
    return seconds if seconds > clip.times[-1] else clip.times[-1] + 1.0


def _ask(ask: _Ask, report: Report, clip: Clip, window: Sequence[Shown], numbers: Sequence[int]) -> bool:
    """Ask, where every region is in one frame at least."""
    unseen = [number for number in numbers if not any(number in one.masks for one in window)]
    if unseen:
        report.lost(window[-1].frame, unseen)
        return False
    ask(clip, list(window), numbers)
    return True


@contextmanager
def _answering(begin: Begun, asking: Asking, *, late_after: float | None) -> Iterator[_Ask]:
    """A way to ask: at once, or in a thread that takes the newest clip when it is done with another.

    late_after: for the thread, the seconds after which an answer is late.
    """

    def said(shown: Sequence[Shown], answer: Answer | GarError, beside: Mapping[str, Any]) -> None:
        newest = shown[-1]
        about = {
            "frames": [one.frame.number for one in shown],
            "times": [round(one.frame.seconds, 3) for one in shown],
            "boxes": [{number: pixel_box(mask) for number, mask in one.masks.items()} for one in shown],
            "experimental": True,
        }
        fields = {"clip": about, **beside}
        begin.report.answers(newest.frame, [Said(asking.question, newest.masks, answer, beside=fields)])

    def masks(shown: Sequence[Shown], numbers: Sequence[int]) -> dict[int, list[Mask | None]]:
        return {number: [one.masks.get(number) for one in shown] for number in numbers}

    def at_once(clip: Clip, shown: Sequence[Shown], numbers: Sequence[int]) -> None:
        asked = clip.stream(asking.question, masks(shown, numbers), options=asking.options)
        said(shown, asked.finish(), {})

    def answered(frame: Frame, outcome: Answer | GarError) -> None:
        if isinstance(outcome, GarError):
            raise outcome
        said(frame.tag, outcome, delays(answers))

    def offer(clip: Clip, shown: Sequence[Shown], numbers: Sequence[int]) -> None:
        answers.offer(Frame(clip, masks(shown, numbers), asking.question, tag=shown))

    if late_after is None:
        yield at_once
        return
    with LiveAnswers(begin.gar, answered, options=asking.options, late_after=late_after) as answers:
        yield offer
        answers.finish()
