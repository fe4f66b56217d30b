"""A bag as a video: the images of a topic in their order, each with what other topics say of the same moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarImageError, GarMaskError
from gar_edge.runtime.images.mask_images import load_mask
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.recordings.bag import Bag, Topic
from gar_edge.runtime.recordings.detections import TYPE as DETECTIONS
from gar_edge.runtime.recordings.detections import Detection, detection_of, with_ids
from gar_edge.runtime.recordings.pairing import Companions, stamp_of
from gar_edge.runtime.recordings.pixels import from_compressed, labels_from_compressed, to_labels, to_rgb
from gar_edge.runtime.video.capture import TimedFrame

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
IMAGES = (RAW, COMPRESSED)


@dataclass(frozen=True)
class RecordedFrame:
    """An image: its number from 0 on, seconds since the first by stamps, and its stamp in nanoseconds.

    logged: when it was recorded. beside: the messages of its stamp by topic; a topic that has none is left out.
    """

    number: int
    seconds: float
    stamp: int
    logged: int
    message: Any
    where: str
    beside: Mapping[str, Any]

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """RGB [H,W,3], decoded when it is wanted first; `GarImageError` where it cannot be."""
        one = self.message
        try:
            if hasattr(one, "format"):
                return from_compressed(one.format, one.data)
            big_endian = bool(one.is_bigendian)
            return to_rgb(one.encoding, one.height, one.width, one.step, one.data, big_endian=big_endian)
        except GarImageError as error:
            raise GarImageError(f"{self.where}: {error}") from None

    def detections(self, topic: str) -> list[Detection] | None:
        """What was detected in it, named; None where no message of its stamp came."""
        message = self.beside.get(topic)
        return None if message is None else with_ids([detection_of(one) for one in message.detections])


@dataclass(frozen=True)
class TopicMasks:
    """A region that has a mask image for each frame, on a topic. label: of label images, the instance that is meant."""

    topic: str
    label: int | None = None

    def of_frame(self, frame: TimedFrame) -> Mask:
        """Bool [H,W] at its own size, all false where no mask of the frame's stamp came, or nothing is marked."""
        message = frame.beside.get(self.topic) if isinstance(frame, RecordedFrame) else None
        if message is None:
            return np.zeros(frame.image.shape[:2], np.bool_)
        try:
            labels = _labels(message)
            if self.label is not None:
                return labels == self.label
            return load_mask(labels) if labels.any() else np.zeros(labels.shape, np.bool_)
        except GarMaskError as error:
            raise GarMaskError(f"{self.topic}: {error}") from None


@dataclass
class Counts:
    """What a recording had beside good frames: times its clock jumped back; by topic, how many frames had no message of
    their stamp, and how many messages had no image of theirs.
    """

    jumps: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    lonely: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        said = [f"images without a message of {topic}: {count}" for topic, count in self.missing.items() if count]
        said += [f"messages of {topic} without an image: {count}" for topic, count in self.lonely.items() if count]
        said += [f"times the clock jumped back: {self.jumps}"] if self.jumps else []
        return "; ".join(said)


class Recording:
    """A context manager; iterate over it once. `live` and `source` are as of `Video`."""

    live = False

    def __init__(self, path: Path, *, topic: str | None, detections: str | None, masks: Sequence[str] = ()) -> None:
        """topic: of the images, None for the only one. Entering raises `GarImageError` for a topic that is missing."""
        self.source = str(path)
        self.counts = Counts()
        self._path = path
        self._bag = Bag(path)
        self._wanted = topic, detections, tuple(dict.fromkeys(masks))

    def __enter__(self) -> Recording:
        topic, detections, masks = self._wanted
        with ExitStack() as stack:
            bag = stack.enter_context(self._bag)
            self.topic: Topic = bag.topic(topic, IMAGES, "images")
            if detections is not None:
                bag.topic(detections, (DETECTIONS,), "detections")
            for one in masks:
                bag.topic(one, IMAGES, "masks")
            beside = [*masks] if detections is None else [detections, *masks]
            # A reader each, for they are at different places of the bag.
            self._companions = [Companions(stack.enter_context(Bag(self._path)), one) for one in beside]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[RecordedFrame]:
        """At least one frame; `GarImageError` where there is none, and where the bag is damaged."""
        first = last = None
        number, bag = 0, self._bag
        self.counts.missing = dict.fromkeys((one.topic for one in self._companions), 0)
        for message in bag.messages([self.topic.name]):
            decoded = bag.decode(message)
            stamp = stamp_of(decoded, message.logged)
            first = stamp if first is None else first
            self.counts.jumps += last is not None and stamp < last
            last = stamp
            beside = {}
            for companions in self._companions:
                found = companions.of(stamp, message.logged)
                if found is None:
                    self.counts.missing[companions.topic] += 1
                else:
                    beside[companions.topic] = found
            where = f"{bag.name}: {self.topic.name} at {stamp // 10**9}.{stamp % 10**9:09}"
            yield RecordedFrame(number, (stamp - first) / 1e9, stamp, message.logged, decoded, where, beside)
            number += 1
        for companions in self._companions:
            companions.finish()
            self.counts.lonely[companions.topic] = companions.lonely
        if not number:
            raise GarImageError(f"{bag.name}: {self.topic} has no message")


def _labels(message: Any) -> NDArray[np.int64]:
    if hasattr(message, "format"):
        return labels_from_compressed(message.format, message.data)
    big_endian = bool(message.is_bigendian)
    return to_labels(message.encoding, message.height, message.width, message.step, message.data, big_endian=big_endian)
