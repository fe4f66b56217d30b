"""The ROS 2 example: its core on its own, its node against a stand-in of rclpy."""

from __future__ import annotations

import json
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples import rclpy_stand_in
from gar_edge.runtime import Gar, GarImageError, GarMaskError, GarPromptError, Options

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "examples/ros2_node"
sys.path.insert(0, str(PACKAGES / "gar_edge_ros"))

from gar_edge_ros.core import Describer, Detection, View, to_rgb  # noqa: E402

PICTURE = np.asarray(Image.open(ROOT / "examples/scene_1.png").convert("RGB"))
HEIGHT, WIDTH = PICTURE.shape[:2]
LEFT = Detection("a", WIDTH * 0.25, HEIGHT * 0.5, WIDTH * 0.3, HEIGHT * 0.5)
RIGHT = Detection("b", WIDTH * 0.75, HEIGHT * 0.5, WIDTH * 0.3, HEIGHT * 0.5)
OUTSIDE = Detection("c", WIDTH * 3, 10, 5, 5)


class Sent:
    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self.more = threading.Condition()

    def __call__(self, outcome: dict[str, Any]) -> None:
        with self.more:
            self.all.append(outcome)
            self.more.notify_all()

    def wait(self, count: int) -> list[dict[str, Any]]:
        with self.more:
            assert self.more.wait_for(lambda: len(self.all) >= count, 30)
            return self.all[:count]


@pytest.fixture(scope="module")
def gar(half_nano: Path) -> Gar:
    return Gar.load(half_nano, threads=1)


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def describer(gar: Gar, sent: Sent) -> Iterator[Describer]:
    made = Describer(gar, sent, 1000.0, Options(max_new_tokens=8))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("encoding", "pixel", "expected"),
    [
        ("rgb8", [1, 2, 3], [1, 2, 3]),
        ("bgr8", [3, 2, 1], [1, 2, 3]),
        ("rgba8", [1, 2, 3, 9], [1, 2, 3]),
        ("bgra8", [3, 2, 1, 9], [1, 2, 3]),
        ("mono8", [7], [7, 7, 7]),
    ],
)
def test_encodings(encoding: str, pixel: list[int], expected: list[int]) -> None:
    """Rows may be padded; what is behind them is no pixel."""
    row = bytes(pixel) * 2 + b"\xff"
    found = to_rgb(encoding, 3, 2, len(row), row * 3)
    assert found.shape == (3, 2, 3)
    assert (found == expected).all()


@pytest.mark.parametrize(
    ("encoding", "height", "width", "step", "size"),
    [("16UC1", 2, 2, 4, 8), ("rgb8", 2, 2, 6, 11), ("rgb8", 2, 2, 5, 10), ("rgb8", 0, 2, 6, 0)],
)
def test_images_that_are_none(encoding: str, height: int, width: int, step: int, size: int) -> None:
    with pytest.raises(GarImageError):
        to_rgb(encoding, height, width, step, b"0" * size)


def test_a_box_is_a_mask() -> None:
    mask = Detection("a", 5, 4, 4, 2).mask(10, 12)
    expected = np.zeros((10, 12), bool)
    expected[3:5, 3:7] = True
    np.testing.assert_array_equal(mask, expected)
    assert Detection("a", 0, 0, 4, 4).mask(10, 12).sum() == 4  # cut at the picture's corner
    for bad in (OUTSIDE, Detection("n", float("nan"), 1, 1, 1), Detection("e", 5, 5, 0, 0)):
        with pytest.raises(GarMaskError, match=f"detection {bad.id}"):
            bad.mask(HEIGHT, WIDTH)


def test_every_detection_is_described_or_says_why_not(describer: Describer, sent: Sent, gar: Gar) -> None:
    describer.see(View(PICTURE, [LEFT, OUTSIDE, RIGHT], 12.5))
    first, outside, last = sent.wait(3)
    assert [first["id"], outside["id"], last["id"]] == ["a", "c", "b"]
    assert "outside the picture" in outside["error"]
    assert first["stamp"] == 12.5
    expected = gar.open(PICTURE).describe(LEFT.mask(HEIGHT, WIDTH), options=Options(max_new_tokens=8))
    assert first["text"] == expected.text
    json.dumps([first, outside, last])


def test_questions_about_the_newest_view(describer: Describer, gar: Gar) -> None:
    with pytest.raises(GarPromptError, match="no picture has come yet"):
        describer.ask("What is <Prompt0>?", ["a"])
    describer.see(View(PICTURE, [LEFT, RIGHT], 1.0))
    question = "Is <Prompt0> to the left or to the right of <Prompt1>?"
    expected = gar.open(PICTURE).ask(question, {0: RIGHT.mask(HEIGHT, WIDTH), 1: LEFT.mask(HEIGHT, WIDTH)})
    assert describer.ask(question, ["b", "a"]).text == expected.text
    with pytest.raises(GarPromptError, match=r"no detection z in the newest picture; there are \['a', 'b'\]"):
        describer.ask(question, ["a", "z"])


def test_an_impossible_rate_is_refused(gar: Gar, sent: Sent) -> None:
    with pytest.raises(GarPromptError, match="rate must be above 0"):
        Describer(gar, sent, 0.0, Options())


# The node


@pytest.fixture
def node(half_nano: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(
        rclpy_stand_in.Node, "overrides", {"bundle": str(half_nano), "threads": 1, "max_new_tokens": 8, "rate": 1e3}
    )
    with rclpy_stand_in.installed():
        sys.modules.pop("gar_edge_ros.node", None)
        from gar_edge_ros.node import DescribeNode

        made = DescribeNode()
        yield made
        made.close()
        sys.modules.pop("gar_edge_ros.node")


def image_message(encoding: str = "rgb8") -> rclpy_stand_in.Image:
    stamp = SimpleNamespace(sec=3, nanosec=500_000_000)
    return rclpy_stand_in.Image(
        header=SimpleNamespace(stamp=stamp), height=HEIGHT, width=WIDTH, encoding=encoding, is_bigendian=0,
        step=3 * WIDTH, data=PICTURE.tobytes(),
    )  # fmt: skip


def detections_message(*detections: Detection) -> rclpy_stand_in.Detection2DArray:
    found = []
    for one in detections:
        center = SimpleNamespace(position=SimpleNamespace(x=one.x, y=one.y), theta=0.0)
        found.append(
            SimpleNamespace(id=one.id, bbox=SimpleNamespace(center=center, size_x=one.width, size_y=one.height))
        )
    return rclpy_stand_in.Detection2DArray(header=None, detections=found)


def test_messages_become_answers(node: Any, gar: Gar) -> None:
    answers = node.publishers["answers"]
    node.heard["detections"](detections_message(LEFT))  # before any image: nothing to look at
    node.heard["image"](image_message())
    node.heard["detections"](detections_message(LEFT, RIGHT))
    with answers.more:
        assert answers.more.wait_for(lambda: len(answers.sent) >= 2, 30)
    outcomes = [json.loads(message.data) for message in answers.sent]
    assert [outcome["id"] for outcome in outcomes] == ["a", "b"]
    assert outcomes[0]["stamp"] == 3.5
    expected = gar.open(PICTURE).describe(LEFT.mask(HEIGHT, WIDTH), options=Options(max_new_tokens=8))
    assert outcomes[0]["text"] == expected.text


def test_the_service_answers_or_says_why_not(node: Any) -> None:
    def ask(question: str, *ids: str) -> Any:
        return node.services["ask"](rclpy_stand_in.Request(question=question, ids=list(ids)), rclpy_stand_in.Response())

    assert not ask("What colour is <Prompt0>?", "a").success
    node.heard["image"](image_message())
    node.heard["detections"](detections_message(LEFT))
    answer = ask("What colour is <Prompt0>?", "a")
    assert answer.success
    assert answer.text
    refused = ask("What colour is <Prompt1>?", "a")
    assert not refused.success
    assert "<Prompt1>" in refused.text


def test_an_image_of_another_kind_is_logged(node: Any) -> None:
    node.heard["image"](image_message("16UC1"))
    node.heard["detections"](detections_message(LEFT))
    assert "16UC1" in node.errors[0]


def test_the_packages_name_what_they_use() -> None:
    declared = {one.text for one in ET.parse(PACKAGES / "gar_edge_ros/package.xml").iter("exec_depend")}
    assert declared == {"rclpy", "sensor_msgs", "std_msgs", "vision_msgs", "gar_edge_interfaces"}
    service = (PACKAGES / "gar_edge_interfaces/srv/Ask.srv").read_text(encoding="utf-8")
    fields = [line.split("#")[0].split() for line in service.splitlines() if line.split("#")[0].strip()]
    assert fields == [["string", "question"], ["string[]", "ids"], ["---"], ["bool", "success"], ["string", "text"]]
