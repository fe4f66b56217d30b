"""What the node does, without ROS: pictures from messages' bytes, masks from boxes, answers from one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime import Answer, Choosing, Gar, GarError, GarImageError, GarMaskError, GarPromptError, Options

# Channels of the encodings that cameras send, and where red, green and blue are among them.
ENCODINGS: Mapping[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)), "bgra8": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
}  # fmt: skip


def to_rgb(encoding: str, height: int, width: int, step: int, data: bytes) -> NDArray[np.uint8]:
    """RGB [H,W,3] from the fields of a `sensor_msgs/Image`; `GarImageError` for what is none."""
    if encoding not in ENCODINGS:
        raise GarImageError(f"images of encoding {encoding!r} are not known; send one of {', '.join(ENCODINGS)}")
    channels, order = ENCODINGS[encoding]
    used = width * channels
    if min(height, width) < 1 or step < used or len(data) < (height - 1) * step + used:  # the last row needs no padding
        raise GarImageError(f"an image of {width}x{height}, {step} bytes a row, cannot have {len(data)} bytes")
    rows = np.lib.stride_tricks.as_strided(np.frombuffer(data, np.uint8), (height, used), (step, 1), writeable=False)
    return np.ascontiguousarray(rows.reshape(height, width, channels)[:, :, order])


@dataclass(frozen=True)
class Detection:
    """A detector's box: its centre and size in pixels, and the id by which questions name it.

    theta: the box's turn about its centre, in radians, from the x axis towards the y axis.
    """

    id: str
    x: float
    y: float
    width: float
    height: float
    theta: float = 0.0

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """The pixels [H,W] whose centres lie in the box, which counts as a pixel wide and high at least.

        `GarMaskError` where it has no size, and where nothing of it is inside the picture.
        """
        if not np.isfinite((self.x, self.y, self.width, self.height, self.theta)).all():
            raise GarMaskError(f"detection {self.id}: its box is not a number")
        if min(self.width, self.height) <= 0:
            raise GarMaskError(f"detection {self.id}: its box has no size")
        right, down = np.arange(width) + 0.5 - self.x, np.arange(height)[:, None] + 0.5 - self.y
        sides = (
            (self.width, np.cos(self.theta), np.sin(self.theta)),
            (self.height, -np.sin(self.theta), np.cos(self.theta)),
        )
        mask = np.ones((height, width), np.bool_)
        for size, across, along in sides:
            offset, half = right * across + down * along, max(size, 1.0) / 2
            mask &= (-half <= offset) & (offset < half)
        if not mask.any():
            raise GarMaskError(f"detection {self.id}: its box is outside the picture")
        return mask


def with_ids(detections: Sequence[Detection]) -> list[Detection]:
    """Detections without an id get their place in the message as one, beginning with 0."""
    taken = {one.id for one in detections}
    named = []
    for place, one in enumerate(detections):
        name = one.id or str(place)
        while not one.id and name in taken:
            name = f"_{name}"
        named.append(replace(one, id=name))
    return named


@dataclass(frozen=True)
class View:
    """A picture [H,W,3], what was detected in it, and its time."""

    picture: NDArray[np.uint8]
    detections: Sequence[Detection]
    stamp: float


class Describer:
    """Describes the newest view's detections, at most `rate` views a second, in a thread of its own.

    publish: called in that thread with one object per detection. Questions take turns with descriptions.
    """

    def __init__(self, gar: Gar, publish: Callable[[dict[str, Any]], None], rate: float, options: Options) -> None:
        if not rate > 0:
            raise GarPromptError(f"rate must be above 0, not {rate}")
        self._gar = gar
        self._publish = publish
        self._period = 1 / rate
        self._options = options
        self._engine = threading.Lock()  # one job at a time: a question should not wait for half of the processor
        self._changed = threading.Condition()
        self._view: View | None = None
        self._fresh = self._ended = False
        self._thread = threading.Thread(target=self._work, name="gar-edge describer")
        self._thread.start()

    def see(self, view: View) -> None:
        """Leave the newest view; one that nobody has begun with is forgotten."""
        with self._changed:
            self._view, self._fresh = view, True
            self._changed.notify()

    def ask(self, question: str, ids: Sequence[str], choices: Sequence[str] = (), abstain_below: float = 0.0) -> Answer:
        """Answer about detections of the newest view, by one of the choices if there are any.

        `GarError` says what is wrong.
        """
        with self._changed:
            view = self._view
        if view is None:
            raise GarPromptError("no picture has come yet")
        found = {detection.id: detection for detection in view.detections}
        missing = [one for one in ids if one not in found]
        if missing:
            named = ", ".join(one or "without an id" for one in missing)
            raise GarPromptError(f"no detection {named} in the newest picture; there are {list(found)}")
        names = [detection.id for detection in view.detections]
        if twice := [one for one in ids if names.count(one) > 1]:
            raise GarPromptError(f"{names.count(twice[0])} detections of the newest picture have the id {twice[0]}")
        height, width = view.picture.shape[:2]
        masks = {number: found[one].mask(height, width) for number, one in enumerate(ids)}
        choosing = Choosing(choices, abstain_below=abstain_below) if choices else None
        options = replace(self._options, choosing=choosing, logprobs=0)
        with self._engine:
            return self._gar.open(view.picture).ask(question, masks, options=options)

    def close(self) -> None:
        """End the thread after the view in work."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (view := self._next()) is not None:
            begin = time.monotonic()
            for outcome in self._describe(view):
                self._publish(outcome)
            with self._changed:
                self._changed.wait_for(lambda: self._ended, max(0.0, begin + self._period - time.monotonic()))

    def _next(self) -> View | None:
        with self._changed:
            self._changed.wait_for(lambda: self._fresh or self._ended)
            self._fresh = False
            return None if self._ended else self._view

    def _describe(self, view: View) -> list[dict[str, Any]]:
        height, width = view.picture.shape[:2]
        outcomes: list[dict[str, Any]] = []
        masks: list[NDArray[np.bool_]] = []
        whose: list[dict[str, Any]] = []
        for one in view.detections:
            outcome = {"stamp": view.stamp, "id": one.id, "box": [one.x, one.y, one.width, one.height]}
            outcomes.append(outcome)
            try:
                masks.append(one.mask(height, width))
                whose.append(outcome)
            except GarMaskError as error:
                outcome["error"] = str(error)
        try:
            with self._engine:
                answers = self._gar.open(view.picture).describe_all(masks, options=self._options)
        except GarError as error:
            for outcome in whose:
                outcome["error"] = str(error)
            return outcomes
        for outcome, answer in zip(whose, answers, strict=True):
            outcome |= {"text": answer.text, "milliseconds": round(answer.timings_ms.total, 1)}
        return outcomes
