"""What the node does, without ROS: answers about the newest view, from one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime import Answer, Choosing, Gar, GarError, GarMaskError, GarPromptError, Options
from gar_edge.runtime.recordings.detections import Detection


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
