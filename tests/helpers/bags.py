"""Bags written by rosbags, of messages whose pixels are made here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
DETECTIONS = "vision_msgs/msg/Detection2DArray"
START = 1_700_000_000 * 10**9 + 123_456_789  # nanoseconds
Kind = Literal["mcap", "sqlite3", "ros1"]

_COVARIANCE = "geometry_msgs/PoseWithCovariance pose"
# From ros-perception/vision_msgs: branches ros2 (Humble and later), galactic and foxy.
HUMBLE = {
    "vision_msgs/msg/Point2D": "float64 x\nfloat64 y",
    "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score",
    "vision_msgs/msg/ObjectHypothesisWithPose": f"vision_msgs/ObjectHypothesis hypothesis\n{_COVARIANCE}",
    "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id"
    ),
    DETECTIONS: "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
}
GALACTIC = {name: fields for name, fields in HUMBLE.items() if not name.endswith(("/Pose2D", "/Point2D"))} | {
    "vision_msgs/msg/BoundingBox2D": "geometry_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y"
}
FOXY = {
    "vision_msgs/msg/ObjectHypothesisWithPose": f"string id\nfloat64 score\n{_COVARIANCE}",
    "vision_msgs/msg/BoundingBox2D": "geometry_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "vision_msgs/msg/Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\nvision_msgs/BoundingBox2D bbox\n"
        "sensor_msgs/Image source_img\nbool is_tracking\nstring tracking_id"
    ),
    DETECTIONS: HUMBLE[DETECTIONS],
}


@dataclass(frozen=True)
class Recorded:
    """A message to be written. logged: nanoseconds."""

    topic: str
    type: str
    logged: int
    message: Any


class Messages:
    """Messages of one ROS: its own and vision_msgs' of a version."""

    def __init__(self, *, ros1: bool = False, vision: dict[str, str] = HUMBLE) -> None:
        self.ros1 = ros1
        self.store: Any = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_FOXY)
        self.vision = vision
        for name, fields in vision.items():
            self.store.register(get_types_from_msg(fields, name))

    def header(self, stamp: int) -> Any:
        time = self.store.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        fields: dict[str, Any] = {"stamp": time, "frame_id": "camera"}
        return self.store.types["std_msgs/msg/Header"](**fields, **({"seq": 0} if self.ros1 else {}))

    def image(
        self, stamp: int, encoding: str, size: tuple[int, int], step: int, data: bytes, *, big_endian: bool = False
    ) -> Any:
        """size: width, height."""
        return self.store.types[IMAGE](
            header=self.header(stamp), height=size[1], width=size[0], encoding=encoding, is_bigendian=int(big_endian),
            step=step, data=np.frombuffer(data, np.uint8),
        )  # fmt: skip

    def rgb(self, stamp: int, picture: np.ndarray) -> Any:
        height, width = picture.shape[:2]
        return self.image(stamp, "rgb8", (width, height), 3 * width, picture.tobytes())

    def compressed(self, stamp: int, form: str, data: bytes) -> Any:
        return self.store.types[COMPRESSED](header=self.header(stamp), format=form, data=np.frombuffer(data, np.uint8))

    def detections(self, stamp: int, boxes: Sequence[tuple[str, Sequence[float]]]) -> Any:
        """boxes: id, and left, upper, right, lower."""
        types = self.store.types
        return types[DETECTIONS](header=self.header(stamp), detections=[self._detection(stamp, *one) for one in boxes])

    def _detection(self, stamp: int, name: str, box: Sequence[float]) -> Any:
        types = self.store.types
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if "vision_msgs/msg/Pose2D" in self.vision:
            position = types["vision_msgs/msg/Point2D"](x=x, y=y)
            centre = types["vision_msgs/msg/Pose2D"](position=position, theta=0.0)
        else:
            centre = types["geometry_msgs/msg/Pose2D"](x=x, y=y, theta=0.0)
        bounds = types["vision_msgs/msg/BoundingBox2D"](center=centre, size_x=box[2] - box[0], size_y=box[3] - box[1])
        detection = types["vision_msgs/msg/Detection2D"]
        if self.vision is not FOXY:
            return detection(header=self.header(stamp), results=[self._result()], bbox=bounds, id=name)
        source = self.image(0, "", (0, 0), 0, b"")
        return detection(
            header=self.header(stamp), results=[self._result()], bbox=bounds, source_img=source, is_tracking=True,
            tracking_id=name,
        )  # fmt: skip

    def _result(self) -> Any:
        types = self.store.types
        pose = types["geometry_msgs/msg/PoseWithCovariance"](
            pose=types["geometry_msgs/msg/Pose"](
                position=types["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0),
                orientation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
            ),
            covariance=np.zeros(36),
        )
        kind = types["vision_msgs/msg/ObjectHypothesisWithPose"]
        if self.vision is not FOXY:
            return kind(hypothesis=types["vision_msgs/msg/ObjectHypothesis"](class_id="cup", score=0.9), pose=pose)
        return kind(id="cup", score=0.9, pose=pose)


def write_bag(path: Path, kind: Kind, messages: Messages, recorded: Iterable[Recorded]) -> Path:
    """The bag; a folder for ROS 2."""
    if kind == "ros1":
        writer: Any = Writer1(path)
    else:
        plugin = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
        writer = Writer(path, version=9, storage_plugin=plugin)
    topics: dict[str, Any] = {}
    with writer:
        for one in recorded:
            if one.topic not in topics:
                topics[one.topic] = writer.add_connection(one.topic, one.type, typestore=messages.store)
            serialize = messages.store.serialize_ros1 if kind == "ros1" else messages.store.serialize_cdr
            writer.write(topics[one.topic], one.logged, serialize(one.message, one.type))
    return path


def only_file(folder: Path, suffix: str) -> Path:
    """The storage file of a rosbag2 folder."""
    (found,) = folder.glob(f"*{suffix}")
    return found
