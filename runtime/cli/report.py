"""What `gar-run VIDEO` says: a line on stdout for whatever was asked, and the files of `--out`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import typer

from gar_edge.runtime.cli.streams import to_json
from gar_edge.runtime.errors import GarError
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.choosing import Choice
from gar_edge.runtime.images.shape import Mask, pixel_box
from gar_edge.runtime.timeline.entry import Entry, JsonLines, Moment, Sink
from gar_edge.runtime.video.capture import TimedFrame

_CHECKED = ("value", "choices", "margin", "entropy", "confidence", "logprobs")  # of an answer, where it has them
_UNSURE = "(none is likely enough)"


@dataclass(frozen=True)
class Said:
    """An answer about regions of a frame, or why there is none. beside: more fields of the line."""

    question: str | None
    masks: Mapping[int, Mask]
    answer: Answer | GarError
    name: str = ""  # of a detection
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The answer in one line."""
        if isinstance(self.answer, GarError):
            return f"({self.answer})"
        unsure = isinstance(self.answer, Choice) and self.answer.best is None
        return _UNSURE if unsure else " ".join(self.answer.text.split())

    @property
    def fields(self) -> dict[str, Any]:
        """Of the line, behind those of the moment."""
        named = {"id": self.name} if self.name else {}
        if isinstance(self.answer, GarError):
            return {**named, "error": str(self.answer), **self.beside}
        return {
            **named,
            "boxes": {number: pixel_box(mask) for number, mask in self.masks.items()},
            "text": self.answer.text,
            "finish_reason": self.answer.finish_reason,
            "milliseconds": round(self.answer.timings_ms.total, 3),
            **{name: value for name, value in self.answer.to_json().items() if name in _CHECKED},
            **self.beside,
        }


class Report:
    """A context manager, which closes the files. `answered`: frames about which something was said."""

    def __init__(self, as_json: bool, sinks: Sequence[Sink] = ()) -> None:
        self.answered = 0
        self._as_json = as_json
        self._sinks = sinks

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sink in self._sinks:
            sink.close(whole=error is None)

    def answers(self, frame: TimedFrame, said: Sequence[Said]) -> None:
        """What was said about a frame's regions, all of it: nothing, where it has none."""
        self.answered += bool(said)
        moment = _moment(frame)
        for one in said:
            self._print(moment, one.fields, f"{one.name}: {one.text}" if one.name else one.text)
        self._note(moment, [(one.question, one.fields, one.text, one.masks) for one in said])

    def lost(self, frame: TimedFrame, numbers: Sequence[int]) -> None:
        """Which regions the frame does not show, so that nothing was asked."""
        moment, text = _moment(frame), f"(not seen: region {', '.join(map(str, numbers))})"
        self._print(moment, {"lost": numbers}, text)
        self._note(moment, [(None, {"lost": list(numbers)}, text, {})])

    def _print(self, moment: Moment, fields: dict[str, Any], text: str) -> None:
        line = to_json(moment.fields | fields, sys.stdout) if self._as_json else f"{moment.seconds:8.2f} s  {text}"
        sys.stdout.write(f"{line}\n")  # in one piece: the answering thread writes, too
        sys.stdout.flush()

    def _note(self, moment: Moment, said: Sequence[tuple[str | None, dict[str, Any], str, Mapping[int, Mask]]]) -> None:
        entries = [
            Entry(moment.fields | {"question": question} | fields, question, text, masks)
            for question, fields, text, masks in said
        ]
        for sink in self._sinks:
            sink.add(moment, entries)


def check_out(paths: Sequence[Path], source: str) -> None:
    """`typer.BadParameter` for what `--out` cannot be: known before a model is loaded, or a file written."""
    for path in paths:
        if not path.absolute().parent.is_dir():
            raise typer.BadParameter(f"{path}: its folder does not exist; make it first", param_hint="--out")
        if path.suffix.lower() not in _KINDS:
            raise typer.BadParameter(f"{path}: end it in {', '.join(_KINDS)}", param_hint="--out")
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise typer.BadParameter(f"{path} is the recording itself; name another file", param_hint="--out")


def open_sinks(paths: Sequence[Path], source: str) -> list[Sink]:
    """What `--out` names, by its suffix; `GarImageError` where a file cannot be written."""
    return [_KINDS[path.suffix.lower()](path, source) for path in paths]


def _page(path: Path, source: str) -> Sink:
    from gar_edge.runtime.timeline.page import TimelinePage

    return TimelinePage(path, f"Asked about {Path(source).name or source}")


def _messages(path: Path, _: str) -> Sink:
    from gar_edge.runtime.recordings.answers import McapAnswers

    return McapAnswers(path)


_KINDS: Mapping[str, Callable[[Path, str], Sink]] = {
    ".jsonl": lambda path, _: JsonLines(path),
    ".html": _page,
    ".mcap": _messages,
}


def _moment(frame: TimedFrame) -> Moment:
    stamp, logged = getattr(frame, "stamp", None), getattr(frame, "logged", None)
    return Moment(frame, stamp, logged)
