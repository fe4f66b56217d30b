"""Messages that belong to an image, by their stamps: detections, masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gar_edge.runtime.recordings.bag import Bag, Message

SLOP = 1_000_000  # nanoseconds: a stamp that went through a float is another by some hundred
WAIT = 5_000_000_000  # nanoseconds of the recorder's clock: no companion comes later, or earlier


class Companions:
    """The messages of one topic, found by the stamp of an image, while both are read from a bag once.

    lonely: how many had no image of their stamp, as far as is known by now.
    """

    def __init__(self, bag: Bag, topic: str) -> None:
        self.topic = topic
        self.lonely = 0
        self._bag = bag
        self._source: Iterator[Message] = bag.messages([topic])
        self._waiting: dict[int, tuple[int, Any]] = {}  # by stamp: when recorded, and the message

    def of(self, stamp: int, logged: int) -> Any | None:
        """The message of an image's stamp, both in nanoseconds; None where it does not come."""
        for early in [one for one, (when, _) in self._waiting.items() if when < logged - WAIT]:
            del self._waiting[early]
            self.lonely += 1
        while (found := self._nearest(stamp)) is None:
            message = next(self._source, None)
            if message is None:
                return None
            decoded = self._bag.decode(message)
            self.lonely += (key := stamp_of(decoded, message.logged)) in self._waiting
            self._waiting[key] = message.logged, decoded
            if message.logged > logged + WAIT:
                found = self._nearest(stamp)
                break
        return None if found is None else self._waiting.pop(found)[1]

    def finish(self) -> None:
        """Count those that are left; to be called when there are no more images."""
        self.lonely += len(self._waiting) + sum(1 for _ in self._source)
        self._waiting.clear()

    def _nearest(self, stamp: int) -> int | None:
        if stamp in self._waiting:
            return stamp
        near = min(self._waiting, key=lambda one: abs(one - stamp), default=None)
        return near if near is not None and abs(near - stamp) <= SLOP else None


def stamp_of(message: Any, logged: int) -> int:
    """A message's own stamp in nanoseconds; where it is 0, which drivers without a clock send, when it was recorded."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec) or logged
