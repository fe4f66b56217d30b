"""The node: fields of messages to and from `core.Describer`."""

from __future__ import annotations

import json
from typing import Any

import rclpy
from gar_edge_interfaces.srv import Ask
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from vision_msgs.msg import Detection2DArray

from gar_edge.runtime import Answer, Choice, Gar, GarError, Options
from gar_edge.runtime.recordings.detections import detection_of, with_ids
from gar_edge.runtime.recordings.pixels import to_rgb
from gar_edge_ros.core import Describer, View
from gar_edge_ros.pairing import Pairing


class DescribeNode(Node):
    """Detections and the image of their stamp make a view."""

    def __init__(self) -> None:
        super().__init__("gar_edge")
        bundle = self.declare_parameter("bundle", "").value
        rate = self.declare_parameter("rate", 2.0).value
        backend = self.declare_parameter("backend", "auto").value
        threads = self.declare_parameter("threads", 0).value
        tokens = self.declare_parameter("max_new_tokens", 128).value
        limit = self.declare_parameter("image_wait", 1.0).value
        self._gar = Gar.load(bundle or None, backend=backend, threads=threads)
        self._answers = self.create_publisher(String, "answers", 10)
        self._describer = Describer(self._gar, self._publish, rate, Options(max_new_tokens=tokens, live=True))
        self._pairing: Pairing[Image, Detection2DArray] = Pairing(round(limit * 1e9))
        self._lost = 0
        self.create_subscription(Image, "image", self._on_image, qos_profile_sensor_data)
        self.create_subscription(Detection2DArray, "detections", self._on_detections, 10)
        # A group of its own: an answer takes seconds, and images must be taken in meanwhile.
        self.create_service(Ask, "ask", self._on_ask, callback_group=ReentrantCallbackGroup())

    def close(self) -> None:
        self._describer.close()
        self._gar.close()

    def _on_image(self, message: Image) -> None:
        self._look(self._pairing.image(_stamp(message), message))

    def _on_detections(self, message: Detection2DArray) -> None:
        self._look(self._pairing.detections(_stamp(message), message))

    def _look(self, pairs: list[tuple[Image, Detection2DArray]]) -> None:
        for image, detections in pairs:
            try:
                picture = to_rgb(
                    image.encoding, image.height, image.width, image.step, bytes(image.data),
                    big_endian=bool(image.is_bigendian),
                )  # fmt: skip
            except GarError as error:
                self.get_logger().error(str(error), throttle_duration_sec=5.0)
                continue
            found = with_ids([detection_of(one) for one in detections.detections])
            self._describer.see(View(picture, found, _stamp(image) * 1e-9))
        if self._pairing.dropped > self._lost:
            self._lost = self._pairing.dropped
            self.get_logger().error(
                f"{self._lost} messages of detections were dropped: no image of their stamp came; does the detector "
                "copy the image's header?",
                throttle_duration_sec=5.0,
            )

    def _on_ask(self, request: Ask.Request, response: Ask.Response) -> Ask.Response:
        try:
            answer = self._describer.ask(
                request.question, list(request.ids), list(request.choices), request.abstain_below
            )
            _fill(response, answer)
        except GarError as error:
            response.success, response.text = False, str(error)
        return response

    def _publish(self, outcome: dict[str, Any]) -> None:
        self._answers.publish(String(data=json.dumps(outcome, ensure_ascii=False)))


def _fill(response: Ask.Response, answer: Answer) -> None:
    response.success, response.text = True, answer.text
    if not isinstance(answer, Choice):
        response.confidence = answer.confidence.mean if answer.confidence else 0.0
    elif answer.likeliest is None:
        response.success, response.text = False, f"the answer ended before it was made ({answer.finish_reason})"
    else:
        likeliest = answer.likeliest
        response.probabilities = [choice.probability for choice in answer.choices]
        response.confidence = likeliest.probability
        if answer.best is None:
            response.success = False
            response.text = f"none is likely enough; the likeliest is {likeliest.text} ({likeliest.probability:.1%})"


def _stamp(message: Any) -> int:
    """Nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def main() -> None:
    """Entry point of `ros2 run gar_edge_ros describe`."""
    rclpy.init()
    node = DescribeNode()
    executor = MultiThreadedExecutor(num_threads=2)
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()
