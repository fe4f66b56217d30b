"""As much of rclpy and its messages as the node touches, enforcing that it only does what they have."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar


class Message:
    """A message whose fields are fixed, as generated ones are."""

    fields: tuple[str, ...] = ()

    def __init__(self, **values: Any) -> None:
        unknown = values.keys() - set(self.fields)
        assert not unknown, f"{type(self).__name__} has no {unknown}"
        object.__setattr__(self, "values", dict.fromkeys(self.fields) | values)

    def __getattr__(self, name: str) -> Any:
        if name not in type(self).fields:
            raise AttributeError(name)
        return self.values[name]

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self.fields, f"{type(self).__name__} has no {name}"
        self.values[name] = value


class Image(Message):
    fields = ("header", "height", "width", "encoding", "is_bigendian", "step", "data")


class String(Message):
    fields = ("data",)


class Detection2DArray(Message):
    fields = ("header", "detections")


class Request(Message):
    fields = ("question", "ids", "choices", "abstain_below")


class Response(Message):
    fields = ("success", "text", "confidence", "probabilities")


class Publisher:
    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.more = threading.Condition()

    def publish(self, message: Message) -> None:
        assert isinstance(message, String)
        assert isinstance(message.data, str)
        with self.more:
            self.sent.append(message)
            self.more.notify_all()


class Node:
    """Parameters come from `overrides`; subscriptions and services are called by the test."""

    overrides: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.publishers: dict[str, Publisher] = {}
        self.heard: dict[str, Callable[[Any], None]] = {}
        self.services: dict[str, Callable[[Any, Any], Any]] = {}
        self.errors: list[str] = []
        self.destroyed = False

    def declare_parameter(self, name: str, default: Any) -> SimpleNamespace:
        value = self.overrides.get(name, default)
        assert isinstance(value, type(default)), f"parameter {name} is {type(default).__name__}"
        return SimpleNamespace(value=value)

    def create_publisher(self, kind: type, topic: str, depth: int) -> Publisher:
        assert kind is String
        return self.publishers.setdefault(topic, Publisher())

    def create_subscription(self, kind: type, topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        assert kind in (Image, Detection2DArray)
        self.heard[topic] = callback

    def create_service(self, kind: Any, name: str, callback: Callable[[Any, Any], Any], *, callback_group: Any) -> None:
        self.services[name] = callback

    def get_logger(self) -> SimpleNamespace:
        return SimpleNamespace(error=lambda text, throttle_duration_sec: self.errors.append(text))

    def destroy_node(self) -> None:
        self.destroyed = True


@contextmanager
def installed() -> Iterator[None]:
    """The stand-ins where `import rclpy` and its messages look for them."""
    contents: dict[str, dict[str, Any]] = {
        "rclpy": {},
        "rclpy.node": {"Node": Node},
        "rclpy.executors": {"ExternalShutdownException": type("ExternalShutdownException", (Exception,), {}),
                            "MultiThreadedExecutor": object},
        "rclpy.callback_groups": {"ReentrantCallbackGroup": object},
        "rclpy.qos": {"qos_profile_sensor_data": object()},
        "sensor_msgs": {}, "sensor_msgs.msg": {"Image": Image},
        "std_msgs": {}, "std_msgs.msg": {"String": String},
        "vision_msgs": {}, "vision_msgs.msg": {"Detection2DArray": Detection2DArray},
        "gar_edge_interfaces": {},
        "gar_edge_interfaces.srv": {"Ask": SimpleNamespace(Request=Request, Response=Response)},
    }  # fmt: skip
    before = {name: sys.modules.get(name) for name in contents}
    for name, members in contents.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, module_before in before.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before
