"""One thing that was asked about one moment, and what came of it; and what takes a run of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

from gar_edge.runtime.errors import GarImageError
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.video.capture import TimedFrame


@dataclass(frozen=True)
class Moment:
    """A frame, and what a recording knows of it: its stamp, and when it was recorded, in nanoseconds."""

    frame: TimedFrame
    stamp: int | None = None
    logged: int | None = None

    @property
    def seconds(self) -> float:
        """Since the first frame."""
        return self.frame.seconds

    @property
    def fields(self) -> dict[str, Any]:
        """The first fields of every line. A stamp is as ROS writes it, for its nanoseconds are no JavaScript number."""
        about: dict[str, Any] = {"frame": self.frame.number, "time": round(self.seconds, 3)}
        if self.stamp is not None:
            about["stamp"] = {"sec": self.stamp // 10**9, "nanosec": self.stamp % 10**9}
        return about


@dataclass(frozen=True)
class Entry:
    """fields: the line of JSON (docs/video.md has them). question: None where a description was asked for.

    said: the answer's text, or why there is none. masks: the regions [H,W] by number.
    """

    fields: Mapping[str, Any]
    question: str | None
    said: str
    masks: Mapping[int, Mask] = field(default_factory=dict)


class Sink(Protocol):
    """Takes entries, a moment's together, in their order; any thread may call, one at a time."""

    def add(self, moment: Moment, entries: Sequence[Entry]) -> None: ...

    def close(self, *, whole: bool) -> None:
        """whole: whether it ended as it should."""


class JsonLines:
    """A line of JSON for each entry, written at once, so that a run that breaks off leaves what it had."""

    def __init__(self, path: Path) -> None:
        """`GarImageError` where the file cannot be written."""
        try:
            self._file: TextIO = path.open("w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise GarImageError(f"{path}: cannot be written ({error.strerror})") from None

    def add(self, moment: Moment, entries: Sequence[Entry]) -> None:
        """Write them."""
        for entry in entries:
            self._file.write(json.dumps(entry.fields, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self, *, whole: bool) -> None:
        """Close the file; what is there stays."""
        self._file.close()
