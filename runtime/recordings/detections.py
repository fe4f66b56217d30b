"""A detector's boxes, and `vision_msgs/Detection2DArray` as each ROS has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.errors import GarMaskError

TYPE = "vision_msgs/msg/Detection2DArray"

_HEADER = "std_msgs/Header header\n"
_POSE = "geometry_msgs/PoseWithCovariance pose\n"
_SIZE = "float64 size_x\nfloat64 size_y\n"
# For bags without definitions, by type: fields from the packages' branches ros2 (Humble and later), galactic and foxy.
DEFINITIONS: Sequence[dict[str, str]] = (
    {
        TYPE: _HEADER + "Detection2D[] detections",
        "vision_msgs/msg/Detection2D": _HEADER + "ObjectHypothesisWithPose[] results\nBoundingBox2D bbox\nstring id",
        "vision_msgs/msg/ObjectHypothesisWithPose": "ObjectHypothesis hypothesis\n" + _POSE,
        "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score",
        "vision_msgs/msg/BoundingBox2D": "vision_msgs/Pose2D center\n" + _SIZE,
        "vision_msgs/msg/Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
        "vision_msgs/msg/Point2D": "float64 x\nfloat64 y",
    },
    {
        TYPE: _HEADER + "Detection2D[] detections",
        "vision_msgs/msg/Detection2D": _HEADER + "ObjectHypothesisWithPose[] results\nBoundingBox2D bbox\nstring id",
        "vision_msgs/msg/ObjectHypothesisWithPose": "ObjectHypothesis hypothesis\n" + _POSE,
        "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score",
        "vision_msgs/msg/BoundingBox2D": "geometry_msgs/Pose2D center\n" + _SIZE,
    },
    {
        TYPE: _HEADER + "Detection2D[] detections",
        "vision_msgs/msg/Detection2D": _HEADER
        + "ObjectHypothesisWithPose[] results\nBoundingBox2D bbox\nsensor_msgs/Image source_img\n"
        "bool is_tracking\nstring tracking_id",
        "vision_msgs/msg/ObjectHypothesisWithPose": "string id\nfloat64 score\n" + _POSE,
        "vision_msgs/msg/BoundingBox2D": "geometry_msgs/Pose2D center\n" + _SIZE,
    },
)


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


def detection_of(message: Any) -> Detection:
    """A `vision_msgs/Detection2D` of any ROS: boxes have `center.position` since Humble, ids are `tracking_id` before.

    ROS 1's have no id.
    """
    box = message.bbox
    at = getattr(box.center, "position", box.center)
    name = getattr(message, "id", getattr(message, "tracking_id", ""))
    return Detection(str(name), float(at.x), float(at.y), float(box.size_x), float(box.size_y), float(box.center.theta))
