"""`gar-run BAG`: answers about gar-nano's moving scenes, with their images' stamps, and where they are written."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from helpers.bags import DETECTIONS, FOXY, GALACTIC, HUMBLE, IMAGE, START, Kind, Messages, Recorded, only_file
from helpers.drives import (
    BOXES,
    CAMERA,
    COUNT,
    LAG,
    MASKS,
    SCENE,
    ask,
    bag,
    check_answers,
    drive,
    read_messages,
    stamps,
)
from helpers.moving_scenes import QUESTION
from ruamel.yaml import YAML

from gar_edge.runtime.recordings.recording import Recording


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "compressed"])
@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "ros1"])
def test_every_image_is_answered_about_with_its_own_stamp(tmp_path: Path, kind: Kind, packed: bool) -> None:
    messages = Messages(ros1=kind == "ros1", vision=FOXY if kind == "ros1" else HUMBLE)
    source = bag(tmp_path / ("drive.bag" if kind == "ros1" else "drive"), kind, messages, packed=packed)
    lines, said = ask(source, "--topic", CAMERA, "--detections", BOXES, "-q", QUESTION, "--every", "1")
    check_answers(lines, stamps())
    assert all(line["id"] == "thing" for line in lines)
    for index, line in enumerate(lines):
        np.testing.assert_allclose(line["boxes"]["0"], SCENE.view(index).box, atol=1)
        assert line["time"] == pytest.approx(index / 15, abs=1e-3)
    assert said.strip() == f"{COUNT} frames answered"


@pytest.mark.parametrize("arguments", [["--masks", f"{MASKS}"], ["--masks", f"0={MASKS}#3"]])
def test_masks_on_a_topic(mcap: Path, arguments: list[str]) -> None:
    lines, _ = ask(mcap, "--topic", CAMERA, *arguments, "-q", QUESTION, "--every", "1")
    check_answers(lines, stamps())
    for index, line in enumerate(lines):
        assert line["boxes"]["0"] == list(SCENE.view(index).box)


def test_a_label_that_no_mask_has_is_not_seen(mcap: Path) -> None:
    lines, _ = ask(mcap, "--topic", CAMERA, "--masks", f"{MASKS}#4", "--every", "1", "-q", QUESTION)
    assert [line["lost"] for line in lines] == [[0]]


def test_a_region_of_the_first_image_is_followed(mcap: Path) -> None:
    box = ",".join(map(str, SCENE.view(0).box))
    lines, _ = ask(mcap, "--topic", CAMERA, "--box", f"0={box}", "-q", QUESTION, "--every", "1")
    check_answers(lines, stamps())


def test_frames_a_second_go_by_the_stamps(mcap: Path) -> None:
    lines, _ = ask(mcap, "--topic", CAMERA, "--detections", BOXES, "-q", QUESTION, "--fps", "5")
    assert [line["frame"] for line in lines] == [*range(0, COUNT, 3)]


@pytest.mark.parametrize(
    ("written", "said"), [(HUMBLE, "id"), (GALACTIC, "id"), (FOXY, "tracking_id")], ids=["humble", "galactic", "foxy"]
)
def test_detections_of_bags_without_definitions(tmp_path: Path, written: dict[str, str], said: str) -> None:
    """As rosbag2 wrote them up to Humble: the version is told by which of them fits."""
    assert said in written["vision_msgs/msg/Detection2D"]
    source = bag(tmp_path / "drive", "sqlite3", Messages(vision=written), count=6)
    with sqlite3.connect(only_file(source, ".db3")) as storage:
        storage.execute("DELETE FROM message_definitions")
        storage.execute("UPDATE topics SET type_description_hash = ''")
    yaml = YAML(typ="safe")
    metadata = yaml.load(source / "metadata.yaml")
    for topic in metadata["rosbag2_bagfile_information"]["topics_with_message_count"]:
        topic["topic_metadata"]["type_description_hash"] = ""
    yaml.dump(metadata, source / "metadata.yaml")
    lines, _ = ask(source, "--topic", CAMERA, "--detections", BOXES, "-q", QUESTION, "--every", "1")
    check_answers(lines, stamps(6))
    assert all(line["id"] == "thing" for line in lines)


def test_answers_are_written_as_messages_lines_and_a_page(mcap: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"answers.{suffix}" for suffix in ("mcap", "jsonl", "html")]
    outs = [part for path in paths for part in ("--out", str(path))]
    lines, _ = ask(mcap, "--topic", CAMERA, "--detections", BOXES, "-q", QUESTION, "--every", "2", *outs)
    assert len(lines) == COUNT / 2
    kept = [json.loads(line) for line in paths[1].read_text().splitlines()]
    assert [{k: v for k, v in line.items() if k != "question"} for line in kept] == lines
    assert {line["question"] for line in kept} == {QUESTION}

    found = read_messages(paths[0])
    assert [json.loads(message.data) for _, message in found["/gar_edge/answers"]] == kept
    drawn = found["/gar_edge/annotations"]
    assert [logged for logged, _ in drawn] == [stamp + 5_000_000 for stamp in stamps()[::2]]
    for place, (_, message) in enumerate(drawn):
        (text,), (outline,) = message.texts, message.points
        assert text.text == lines[place]["text"]
        assert text.timestamp.sec * 10**9 + text.timestamp.nanosec == stamps()[2 * place]
        assert outline.type == 2  # LINE_LOOP: closed
        xs, ys = [point.x for point in outline.points], [point.y for point in outline.points]
        left, upper, right, lower = SCENE.view(2 * place).box
        assert (min(xs), min(ys), max(xs), max(ys)) == pytest.approx((left, upper, right - 1, lower - 1), abs=1)

    page = paths[2].read_text()
    assert page.count("data:image/jpeg;base64,") == page.count("<figure>") == COUNT / 2
    assert f"{stamps()[2] // 10**9}.{stamps()[2] % 10**9:09}" in page
    assert f"<dd>{SCENE.colour}</dd>" in page


def test_several_detections_of_an_image(tmp_path: Path) -> None:
    """Each on its own; or together, where the question names several; one outside the picture says so."""
    messages = Messages()
    view = SCENE.view(0)
    boxes = [("a", view.box), ("", (0, 0, 10, 10)), ("far", (900, 900, 910, 910))]
    recorded = [
        Recorded(CAMERA, IMAGE, START, messages.rgb(START, view.image)),
        Recorded(BOXES, DETECTIONS, START + 1, messages.detections(START, boxes)),
    ]
    source = bag(tmp_path / "drive", "mcap", messages, iter(recorded))
    out = tmp_path / "page.html"
    lines, _ = ask(source, "--detections", BOXES, "-q", QUESTION, "--out", str(out))
    assert [line["id"] for line in lines] == ["a", "1", "far"]
    assert lines[0]["text"] == SCENE.colour
    assert lines[2]["error"] == "detection far: its box is outside the picture"
    assert out.read_text().count("<figure>") == 1
    lines, _ = ask(source, "--detections", BOXES, "-q", "Is <Prompt0> larger or smaller than <Prompt1>?")
    assert [line["id"] for line in lines] == ["a, 1"]
    assert list(lines[0]["boxes"]) == ["0", "1"]
    four = " and ".join(f"<Prompt{number}>" for number in range(4))
    assert ask(source, "--detections", BOXES, "-q", f"Is {four} red?")[0][0]["lost"] == [3]


def test_a_clip_of_a_recording(mcap: Path) -> None:
    lines, _ = ask(mcap, "--topic", CAMERA, "--masks", f"0={MASKS}", "-q", QUESTION, "--clip", "--frames", "4")
    (line,) = lines
    assert line["clip"]["frames"] == [0, 10, 19, 29]
    assert line["clip"]["experimental"] is True
    assert line["clip"]["boxes"][1] == {"0": list(SCENE.view(10).box)}


def test_stamps_that_went_through_a_float_are_paired(tmp_path: Path) -> None:
    messages = Messages()
    recorded = list(drive(messages, boxes=False, count=5))
    for index, stamp in enumerate(stamps(5)):
        rounded = round(stamp / 1e9 * 1e9)
        assert rounded != stamp
        view = SCENE.view(index)
        recorded.append(Recorded(BOXES, DETECTIONS, stamp + LAG, messages.detections(rounded, [("t", view.box)])))
    source = bag(tmp_path / "drive", "mcap", messages, iter(sorted(recorded, key=lambda one: one.logged)))
    check_answers(ask(source, "--detections", BOXES, "-q", QUESTION, "--every", "1")[0], stamps(5))


def test_messages_without_a_stamp_have_the_recorders(tmp_path: Path) -> None:
    messages = Messages()
    recorded = [Recorded(CAMERA, IMAGE, START + index, messages.rgb(0, SCENE.view(0).image)) for index in range(3)]
    with Recording(bag(tmp_path / "drive", "mcap", messages, iter(recorded)), topic=None, detections=None) as frames:
        assert [frame.stamp for frame in frames] == [START, START + 1, START + 2]


IDL = {
    IMAGE: "sensor_msgs { module msg { struct Image { std_msgs::msg::Header header; uint32 height; uint32 width; "
    "string encoding; uint8 is_bigendian; uint32 step; sequence<uint8> data; }; }; };",
    "std_msgs/msg/Header": "std_msgs { module msg { struct Header { builtin_interfaces::msg::Time stamp; "
    "string frame_id; }; }; };",
    "builtin_interfaces/msg/Time": "builtin_interfaces { module msg { struct Time { int32 sec; "
    "uint32 nanosec; }; }; };",
}


def test_definitions_in_idl(tmp_path: Path) -> None:
    """As rosbag2 writes them for types that have no .msg file."""
    source = bag(tmp_path / "drive", "sqlite3", boxes=False, count=4)
    line = "=" * 80 + "\n"
    text = "".join(f"{line}IDL: {name}\nmodule {body}\n" for name, body in IDL.items())
    with sqlite3.connect(only_file(source, ".db3")) as storage:
        storage.execute("UPDATE message_definitions SET encoding = 'ros2idl', encoded_message_definition = ?", (text,))
    with Recording(source, topic=CAMERA, detections=None) as frames:
        found = list(frames)
    assert [frame.stamp for frame in found] == stamps(4)
    for index, frame in enumerate(found):
        assert np.array_equal(frame.image, SCENE.view(index).image)
