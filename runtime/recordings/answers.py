"""Answers as messages in an MCAP file of ROS 2's, stamped like the images that they are about.

`/gar_edge/annotations` has Foxglove's ImageAnnotations: outlines and answers, as its Image panel draws them over the
images' topic. `/gar_edge/answers` has the timeline's JSON lines as std_msgs/String, for programs.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gar_edge.runtime.errors import GarImageError
from gar_edge.runtime.images.shape import Mask
from gar_edge.runtime.recordings.bag import REMEDY
from gar_edge.runtime.regions.overlay import COLOURS
from gar_edge.runtime.timeline.entry import Entry, Moment

ANNOTATIONS, ANSWERS = "/gar_edge/annotations", "/gar_edge/answers"
_DRAWN, _TEXT = "foxglove_msgs/msg/ImageAnnotations", "std_msgs/msg/String"
# foxglove_msgs' fields, from its documentation.
_DEFINITIONS = {
    "foxglove_msgs/msg/Point2": "float64 x\nfloat64 y",
    "foxglove_msgs/msg/Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a",
    "foxglove_msgs/msg/CircleAnnotation": (
        "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nfloat64 diameter\nfloat64 thickness\n"
        "foxglove_msgs/Color fill_color\nfoxglove_msgs/Color outline_color"
    ),
    "foxglove_msgs/msg/PointsAnnotation": (
        "builtin_interfaces/Time timestamp\nuint8 UNKNOWN=0\nuint8 POINTS=1\nuint8 LINE_LOOP=2\nuint8 LINE_STRIP=3\n"
        "uint8 LINE_LIST=4\nuint8 type\nfoxglove_msgs/Point2[] points\nfoxglove_msgs/Color outline_color\n"
        "foxglove_msgs/Color[] outline_colors\nfoxglove_msgs/Color fill_color\nfloat64 thickness"
    ),
    "foxglove_msgs/msg/TextAnnotation": (
        "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nstring text\nfloat64 font_size\n"
        "foxglove_msgs/Color text_color\nfoxglove_msgs/Color background_color"
    ),
    _DRAWN: (
        "foxglove_msgs/CircleAnnotation[] circles\nfoxglove_msgs/PointsAnnotation[] points\n"
        "foxglove_msgs/TextAnnotation[] texts"
    ),
}
LINE_LOOP = 2
_LEAST_FONT, _FONT = 10.0, 0.04  # pixels; of the picture's longer side
_LONGEST = 200  # characters that are drawn


class McapAnswers:
    """A sink of the timeline: a message of each topic for every frame; the file is there when it is closed.

    `GarImageError` where rosbags is missing or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            from rosbags.rosbag2 import StoragePlugin, Writer
            from rosbags.typesys import Stores, get_types_from_msg, get_typestore
        except ImportError:
            raise GarImageError(f"{path}: {REMEDY}") from None
        self._path = path
        self._store: Any = get_typestore(Stores.ROS2_HUMBLE)
        for name, fields in _DEFINITIONS.items():
            self._store.register(get_types_from_msg(fields, name))
        try:
            self._scratch = Path(tempfile.mkdtemp(prefix=".", suffix=".writing", dir=path.absolute().parent))
        except OSError as error:
            raise GarImageError(f"{path}: cannot be written ({error.strerror})") from None
        self._writer: Any = Writer(self._scratch / path.stem, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._topics = {
            topic: self._writer.add_connection(topic, kind, typestore=self._store)
            for topic, kind in ((ANNOTATIONS, _DRAWN), (ANSWERS, _TEXT))
        }

    def add(self, moment: Moment, entries: Sequence[Entry]) -> None:
        """What was said about one frame."""
        stamp = moment.stamp if moment.stamp is not None else round(moment.seconds * 1e9)
        logged = moment.logged if moment.logged is not None else stamp
        self._write(ANNOTATIONS, _DRAWN, logged, self._annotations(stamp, entries))
        for entry in entries:
            line = json.dumps(entry.fields, ensure_ascii=False)
            self._write(ANSWERS, _TEXT, logged, self._store.types[_TEXT](line))

    def close(self, *, whole: bool) -> None:
        """Put the file into its place, also where the run broke off: what it has is right."""
        try:
            self._writer.close()
            (written,) = (self._scratch / self._path.stem).glob("*.mcap")
            written.replace(self._path)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _annotations(self, stamp: int, entries: Sequence[Entry]) -> Any:
        types = self._store.types
        time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        point, colour = types["foxglove_msgs/msg/Point2"], types["foxglove_msgs/msg/Color"]
        clear, ink, ground = colour(0.0, 0.0, 0.0, 0.0), colour(1.0, 1.0, 1.0, 1.0), colour(0.0, 0.0, 0.0, 0.7)
        points, texts = [], []
        for entry in entries:
            for number, mask in entry.masks.items():
                edge = colour(*(value / 255 for value in COLOURS[number % len(COLOURS)]), 1.0)
                points += [
                    types["foxglove_msgs/msg/PointsAnnotation"](
                        timestamp=time, type=LINE_LOOP, points=[point(float(x), float(y)) for x, y in outline],
                        outline_color=edge, outline_colors=[], fill_color=clear, thickness=2.0,
                    )
                    for outline in _outlines(mask)
                ]  # fmt: skip
            if entry.said and entry.masks:
                mask = next(iter(entry.masks.values()))
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                size = max(_LEAST_FONT, _FONT * max(mask.shape))
                texts.append(
                    types["foxglove_msgs/msg/TextAnnotation"](
                        timestamp=time, position=point(float(columns[0]), float(rows[-1]) + 1 + size),
                        text=entry.said[:_LONGEST], font_size=size, text_color=ink, background_color=ground,
                    )
                )  # fmt: skip
        return types[_DRAWN](circles=[], points=points, texts=texts)

    def _write(self, topic: str, kind: str, logged: int, message: Any) -> None:
        self._writer.write(self._topics[topic], logged, self._store.serialize_cdr(message, kind))


def _outlines(mask: Mask) -> list[Any]:
    """Outer outlines [n,2] of a mask, x and y."""
    import cv2

    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [np.asarray(one)[:, 0] for one in found]
