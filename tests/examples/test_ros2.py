"""The ROS 2 example: its core on its own, its node against a stand-in of rclpy."""

from __future__ import annotations

import json
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from examples import rclpy_stand_in
from gar_edge.runtime import Gar, GarImageError, GarMaskError, GarPromptError, Options
from gar_edge.runtime.recordings.detections import Detection, with_ids
from gar_edge.runtime.recordings.pixels import to_rgb

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "examples/ros2_node"
sys.path.insert(0, str(PACKAGES / "gar_edge_ros"))

from gar_edge_ros.core import Describer, View  # noqa: E402
from gar_edge_ros.pairing import FEWEST, MOST, Pairing  # noqa: E402

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


def test_the_last_row_needs_no_padding() -> None:
    row = bytes([1, 2, 3]) * 2 + b"\xff\xff"
    assert (to_rgb("rgb8", 3, 2, 8, (row * 3)[:-2]) == [1, 2, 3]).all()
    with pytest.raises(GarImageError, match="cannot have 21 bytes"):
        to_rgb("rgb8", 3, 2, 8, (row * 3)[:-3])


@pytest.mark.parametrize(("x", "column"), [(100.25, 100), (100.0, 99), (100.9, 100), (0.1, 0)])
def test_a_thin_box_is_one_pixel_wide(x: float, column: int) -> None:
    mask = Detection("t", x, 50, 0.3, 20).mask(170, 239)
    assert mask.sum() == 20
    assert mask[40:60, column].all()


def test_a_turned_box_is_a_turned_mask() -> None:
    upright = Detection("u", 50, 40, 30, 10).mask(80, 100)
    quarter = Detection("q", 50, 40, 10, 30, np.pi / 2).mask(80, 100)
    np.testing.assert_array_equal(quarter, upright)
    drawn = np.zeros((80, 100), np.uint8)
    corners = cv2.boxPoints(((49.5, 39.5), (30, 10), 30.0))  # OpenCV: the same sense, pixel centres at whole numbers
    cv2.fillPoly(drawn, [np.round(corners * 256).astype(np.int32)], 1, shift=8)
    turned = Detection("t", 50, 40, 30, 10, np.deg2rad(30)).mask(80, 100)
    assert abs(int(turned.sum()) - 300) < 10
    assert not (turned & (drawn == 0)).any()  # OpenCV's also has every pixel that the outline touches


def test_detections_without_an_id_are_named_by_their_place() -> None:
    unnamed = Detection("", 1, 1, 2, 2)
    assert [one.id for one in with_ids([unnamed, LEFT, unnamed])] == ["0", "a", "2"]
    assert [one.id for one in with_ids([replace(LEFT, id="1"), unnamed])] == ["1", "_1"]


def test_each_detection_meets_the_image_of_its_stamp() -> None:
    pairing: Pairing[str, str] = Pairing(1000)
    assert pairing.image(1_000_000_000, "one") == []
    assert pairing.image(2_000_000_000, "two") == []
    assert pairing.detections(1_000_000_300, "of one, through a float") == [("one", "of one, through a float")]
    assert pairing.detections(2_000_000_000, "of two") == [("two", "of two")]
    assert pairing.detections(3_000_000_000, "of three") == []  # which has not come yet
    assert pairing.image(3_000_000_000, "three") == [("three", "of three")]
    assert pairing.dropped == 0


def test_what_has_no_image_is_dropped_and_counted() -> None:
    pairing: Pairing[int, str] = Pairing(10**9)
    for place in range(20):  # 0.1 s apart
        pairing.image(place * 10**8, place)
    assert pairing.detections(5, "of 0, which is too old") == []
    assert pairing.dropped == 1
    assert pairing.detections(10 * 10**8, "of 10") == [(10, "of 10")]
    assert pairing.detections(15 * 10**8 + 5 * 10**7, "of none") == []
    assert pairing.dropped == 1  # it may come yet
    pairing.image(40 * 10**8, 40)
    assert pairing.dropped == 2
    for place in range(FEWEST + 5):
        pairing.detections((50 + place) * 10**8, "early")
    assert pairing.dropped == 7


def test_the_queue_of_images_is_short() -> None:
    slow: Pairing[int, str] = Pairing(10**9)
    fast: Pairing[int, str] = Pairing(10**9)
    for place in range(200):
        slow.image(place * 10**10, place)
        fast.image(place * 10**7, place)
    assert slow.detections((200 - FEWEST) * 10**10, "x") == [(200 - FEWEST, "x")]
    assert slow.detections((199 - FEWEST) * 10**10, "x") == []
    assert fast.detections((200 - MOST) * 10**7, "x") == [(200 - MOST, "x")]
    assert fast.detections((199 - MOST) * 10**7, "x") == []


def test_a_recording_that_begins_anew() -> None:
    pairing: Pairing[str, str] = Pairing(10**9)
    pairing.image(100 * 10**9, "last time")
    pairing.detections(101 * 10**9, "last time's")
    assert pairing.image(1 * 10**9, "again") == []
    assert pairing.detections(1 * 10**9, "of it") == [("again", "of it")]
    assert pairing.dropped == 1


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
    with pytest.raises(GarPromptError, match="no detection without an id"):
        describer.ask(question, ["a", ""])
    describer.see(View(PICTURE, [LEFT, replace(RIGHT, id="a")], 2.0))
    with pytest.raises(GarPromptError, match="2 detections of the newest picture have the id a"):
        describer.ask("What is <Prompt0>?", ["a"])


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


def header(seconds: float) -> SimpleNamespace:
    return SimpleNamespace(stamp=SimpleNamespace(sec=int(seconds), nanosec=round(seconds % 1 * 1e9)))


def image_message(encoding: str = "rgb8", seconds: float = 3.5, picture: np.ndarray = PICTURE) -> rclpy_stand_in.Image:
    return rclpy_stand_in.Image(
        header=header(seconds), height=HEIGHT, width=WIDTH, encoding=encoding, is_bigendian=0,
        step=3 * WIDTH, data=picture.tobytes(),
    )  # fmt: skip


def detections_message(*detections: Detection, seconds: float = 3.5) -> rclpy_stand_in.Detection2DArray:
    found = []
    for one in detections:
        center = SimpleNamespace(position=SimpleNamespace(x=one.x, y=one.y), theta=one.theta)
        found.append(
            SimpleNamespace(id=one.id, bbox=SimpleNamespace(center=center, size_x=one.width, size_y=one.height))
        )
    return rclpy_stand_in.Detection2DArray(header=header(seconds), detections=found)


def test_messages_become_answers(node: Any, gar: Gar) -> None:
    answers = node.publishers["answers"]
    node.heard["image"](image_message())
    node.heard["detections"](detections_message(LEFT, RIGHT))
    with answers.more:
        assert answers.more.wait_for(lambda: len(answers.sent) >= 2, 30)
    outcomes = [json.loads(message.data) for message in answers.sent]
    assert [outcome["id"] for outcome in outcomes] == ["a", "b"]
    assert outcomes[0]["stamp"] == 3.5
    expected = gar.open(PICTURE).describe(LEFT.mask(HEIGHT, WIDTH), options=Options(max_new_tokens=8))
    assert outcomes[0]["text"] == expected.text


def test_detections_are_answered_about_the_image_they_were_made_from(node: Any, gar: Gar) -> None:
    answers = node.publishers["answers"]
    moved = np.ascontiguousarray(PICTURE[:, ::-1])
    node.heard["image"](image_message(seconds=3.0))
    node.heard["image"](image_message(seconds=3.5, picture=moved))
    node.heard["detections"](detections_message(LEFT, seconds=3.0))
    with answers.more:
        assert answers.more.wait_for(lambda: len(answers.sent) >= 1, 30)
    outcome = json.loads(answers.sent[0].data)
    options = Options(max_new_tokens=8)
    assert outcome["stamp"] == 3.0
    assert outcome["text"] == gar.open(PICTURE).describe(LEFT.mask(HEIGHT, WIDTH), options=options).text

    node.heard["detections"](detections_message(RIGHT, seconds=4.0))  # before its image
    assert node.errors == []
    node.heard["image"](image_message(seconds=4.0))
    with answers.more:
        assert answers.more.wait_for(lambda: len(answers.sent) >= 2, 30)
    assert json.loads(answers.sent[1].data)["stamp"] == 4.0


def test_detections_without_an_image_are_counted_in_the_log(node: Any) -> None:
    node.heard["image"](image_message(seconds=9.0))
    node.heard["detections"](detections_message(LEFT, seconds=3.0))
    node.heard["detections"](detections_message(LEFT, seconds=0.0))
    assert [error.split(":")[0] for error in node.errors] == [
        "1 messages of detections were dropped", "2 messages of detections were dropped"
    ]  # fmt: skip
    assert node.publishers["answers"].sent == []


def test_the_service_answers_or_says_why_not(node: Any) -> None:
    def ask(question: str, *ids: str, choices: Sequence[str] = (), abstain_below: float = 0.0) -> Any:
        request = rclpy_stand_in.Request(
            question=question, ids=list(ids), choices=list(choices), abstain_below=abstain_below
        )
        return node.services["ask"](request, rclpy_stand_in.Response())

    assert not ask("What colour is <Prompt0>?", "a").success
    node.heard["image"](image_message())
    node.heard["detections"](detections_message(LEFT))
    answer = ask("What colour is <Prompt0>?", "a")
    assert answer.success
    assert answer.text
    assert 0 < answer.confidence <= 1
    chosen = ask("What colour is <Prompt0>?", "a", choices=["red", "pink", "green"])
    assert chosen.success
    assert chosen.text == ["red", "pink", "green"][int(np.argmax(chosen.probabilities))]
    assert chosen.confidence == max(chosen.probabilities)
    assert sum(chosen.probabilities) == pytest.approx(1)
    unsure = ask("What colour is <Prompt0>?", "a", choices=["red", "pink", "green"], abstain_below=1.0)
    assert not unsure.success
    assert unsure.text.startswith("none is likely enough; the likeliest is ")
    assert unsure.probabilities == chosen.probabilities
    assert "two choices" in ask("What colour is <Prompt0>?", "a", choices=["red"]).text
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
    assert fields == [
        ["string", "question"], ["string[]", "ids"], ["string[]", "choices"], ["float32", "abstain_below"], ["---"],
        ["bool", "success"], ["string", "text"], ["float32", "confidence"], ["float32[]", "probabilities"],
    ]  # fmt: skip
