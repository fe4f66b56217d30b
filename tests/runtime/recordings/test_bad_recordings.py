"""`gar-run BAG` where bags, topics, messages or clocks are not as they should be: one line that says so."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import typer
from helpers.bags import COMPRESSED, DETECTIONS, IMAGE, START, Kind, Messages, Recorded, only_file
from helpers.drives import BOXES, CAMERA, MASKS, PERIOD, SCENE, ask, bag, check_answers, drive, read_messages, stamps
from helpers.moving_scenes import QUESTION

from gar_edge.runtime import GarImageError, GarMaskError


def test_topics_that_are_not_there_name_those_that_are(mcap: Path) -> None:
    there = r"there are: /camera/image_raw \(sensor_msgs/msg/Image, 30\), /detections \(vision_msgs/msg/"
    with pytest.raises(GarImageError, match=r"no topic /camera/image; " + there):
        ask(mcap, "--topic", "/camera/image", "--detections", BOXES)
    with pytest.raises(GarImageError, match="no topic /boxes; there are"):
        ask(mcap, "--topic", CAMERA, "--detections", "/boxes")
    with pytest.raises(GarImageError, match="no topic /mask; there are"):
        ask(mcap, "--topic", CAMERA, "--masks", "/mask")
    with pytest.raises(GarImageError, match=r"2 topics have images, say which; there are: /camera.*, /masks"):
        ask(mcap, "--detections", BOXES)


def test_topics_of_another_type_are_refused(mcap: Path) -> None:
    with pytest.raises(GarImageError, match=r"/detections .* has no images; its type must be sensor_msgs/msg/Image or"):
        ask(mcap, "--topic", BOXES, "--masks", MASKS)
    with pytest.raises(GarImageError, match=r"/masks .* has no detections"):
        ask(mcap, "--topic", CAMERA, "--detections", MASKS)


def test_a_bag_without_images(tmp_path: Path) -> None:
    messages = Messages()
    recorded = [Recorded(BOXES, DETECTIONS, START, messages.detections(START, []))]
    source = bag(tmp_path / "drive", "mcap", messages, iter(recorded))
    with pytest.raises(GarImageError, match="no topic has images; there are: /detections"):
        ask(source, "--detections", BOXES)


def test_images_of_an_unknown_kind_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    messages = Messages()
    depth = messages.image(START + PERIOD, "32FC1", (4, 4), 16, bytes(64))
    recorded = [
        Recorded(CAMERA, IMAGE, START, messages.rgb(START, SCENE.view(0).image)),
        Recorded(CAMERA, IMAGE, START + PERIOD, depth),
        Recorded(CAMERA, IMAGE, START + 2 * PERIOD, messages.rgb(START + 2 * PERIOD, SCENE.view(2).image)),
    ]
    recorded += [
        Recorded(BOXES, DETECTIONS, one.logged + 1, messages.detections(one.logged, [("t", SCENE.view(0).box)]))
        for one in recorded
    ]
    source = bag(tmp_path / "drive", "mcap", messages, iter(sorted(recorded, key=lambda one: one.logged)))
    lines, _ = ask(source, "--detections", BOXES, "-q", QUESTION, "--every", "1")
    assert [line.get("text") for line in lines] == [SCENE.colour, None, SCENE.colour]
    assert "/camera/image_raw at 1700000000.190123456: images of encoding '32FC1' hold depth" in lines[1]["error"]
    with pytest.raises(GarImageError, match="hold depth"):
        ask(source, "--box", "0=" + ",".join(map(str, SCENE.view(0).box)), "-q", QUESTION, "--every", "1")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "ros1"])
def test_truncated_bags_end_in_one_line(tmp_path: Path, kind: Kind, share: float) -> None:
    source = bag(tmp_path / ("drive.bag" if kind == "ros1" else "drive"), kind, count=12)
    file = source if kind == "ros1" else only_file(source, ".mcap" if kind == "mcap" else ".db3")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(GarImageError, match="drive") as caught:
        ask(file, "--topic", CAMERA, "--detections", BOXES, "-q", QUESTION)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["empty.mcap", "empty.db3", "empty.bag", "text.mcap", "text.db3", "text.bag"])
def test_files_that_are_no_bag(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if name.startswith("empty") else b"no bag at all" * 50)
    with pytest.raises(GarImageError, match=name):
        ask(path, "--detections", BOXES)
    with pytest.raises(GarImageError, match="no such bag"):
        ask(tmp_path / f"other{path.suffix}", "--detections", BOXES)


def test_a_damaged_message_says_where_it_is(mcap: Path, tmp_path: Path) -> None:
    messages = Messages()
    recorded = [Recorded(CAMERA, COMPRESSED, START, messages.compressed(START, "jpeg", b"\xff\xd8 not a picture"))]
    source = bag(tmp_path / "drive", "mcap", messages, iter(recorded))
    with pytest.raises(GarImageError, match=r"image_raw at 1700000000\.123456789: a compressed image, 'jpeg', is none"):
        ask(source, "--box", "10,10,60,60")


def test_a_clock_that_jumps_back_is_counted_and_asked_on(tmp_path: Path) -> None:
    messages = Messages()
    times = [*stamps(12), *stamps(12)]  # a simulation that was begun anew
    recorded = [
        Recorded(CAMERA, IMAGE, START + index * PERIOD, messages.rgb(stamp, SCENE.view(index % 12).image))
        for index, stamp in enumerate(times)
    ]
    boxes = [
        Recorded(BOXES, DETECTIONS, one.logged + 1, messages.detections(stamp, [("t", SCENE.view(index % 12).box)]))
        for index, (one, stamp) in enumerate(zip(recorded, times, strict=True))
    ]
    both = sorted([*recorded, *boxes], key=lambda one: one.logged)
    source = bag(tmp_path / "drive", "mcap", messages, iter(both))
    lines, said = ask(source, "--detections", BOXES, "-q", QUESTION, "--fps", "5")
    check_answers(lines, [*stamps(12)[::3], *stamps(12)[::3]])
    assert "times the clock jumped back: 1" in said


def test_what_has_no_partner_of_its_stamp_is_counted(tmp_path: Path) -> None:
    messages = Messages()
    recorded = [
        one
        for one in drive(messages)
        if not (one.topic == CAMERA and one.message.header.stamp.nanosec == stamps()[3] % 10**9)
        and not (one.topic == BOXES and one.message.header.stamp.nanosec == stamps()[7] % 10**9)
    ]
    source = bag(tmp_path / "drive", "mcap", messages, iter(recorded))
    lines, said = ask(source, "--detections", BOXES, "-q", QUESTION, "--every", "1")
    check_answers(lines, [stamp for index, stamp in enumerate(stamps()) if index not in (3, 7)])
    assert "images without a message of /detections: 1" in said
    assert "messages of /detections without an image: 1" in said


def test_a_mask_topic_that_is_no_mask(mcap: Path) -> None:
    with pytest.raises(GarMaskError, match="/camera/image_raw: masks of encoding 'rgb8' are not known"):
        ask(mcap, "--topic", CAMERA, "--masks", f"0={CAMERA}", "-q", QUESTION)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--detections", BOXES, "--box", "1,1,9,9"], "drop the other regions"),
        (["--masks", MASKS, "--realtime"], "--realtime is for video files"),
        (["--masks", MASKS, "--out", "answers.txt"], r"end it in \.jsonl, \.html, \.mcap"),
        (["--masks", MASKS, "--out", "nowhere/answers.jsonl"], "its folder does not exist"),
        (["--detections", BOXES, "--clip"], "--clip needs regions"),
    ],
)
def test_options_that_do_not_go_together(mcap: Path, arguments: list[str], part: str) -> None:
    with pytest.raises(typer.BadParameter, match=part):
        ask(mcap, "--topic", CAMERA, *arguments)


def test_the_recording_itself_is_not_written_over(mcap: Path, tmp_path: Path) -> None:
    copy = shutil.copy(mcap, tmp_path / "drive.mcap")
    with pytest.raises(typer.BadParameter, match="is the recording itself"):
        ask(copy, "--topic", CAMERA, "--detections", BOXES, "--out", str(copy))


def test_topics_of_a_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="are for recordings"):
        ask(tmp_path / "film.mp4", "--detections", BOXES)


def test_without_rosbags_the_remedy_is_named(mcap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rosbags", None)
    with pytest.raises(GarImageError, match=r"pip install 'gar-edge\[bags\]'"):
        ask(mcap, "--topic", CAMERA, "--detections", BOXES)


def test_a_run_that_breaks_off_keeps_what_it_had(mcap: Path, tmp_path: Path) -> None:
    """The message of the last image is spoilt."""
    messages = Messages()
    recorded = list(drive(messages, boxes=False, count=8))
    bad = messages.image(stamps(9)[8], "rgb8", (200, 150), 600, b"short")
    recorded.append(Recorded(CAMERA, IMAGE, stamps(9)[8] + 5_000_000, bad))
    source = bag(tmp_path / "drive", "mcap", messages, iter(recorded))
    outs = {suffix: tmp_path / f"kept.{suffix}" for suffix in ("jsonl", "html", "mcap")}
    box = ",".join(map(str, SCENE.view(0).box))
    arguments = [part for path in outs.values() for part in ("--out", str(path))]
    with pytest.raises(GarImageError, match="cannot have 5 bytes"):
        ask(source, "--box", f"0={box}", "-q", QUESTION, "--every", "1", *arguments)
    assert len(outs["jsonl"].read_text().splitlines()) == 8
    assert "It broke off." in outs["html"].read_text()
    assert len(read_messages(outs["mcap"])["/gar_edge/answers"]) == 8


def test_images_that_change_their_size(tmp_path: Path) -> None:
    """Followed they end the run; with detections each is asked about as it is."""
    messages = Messages()
    pictures = [SCENE.view(0).image, SCENE.view(1).image[:100]]
    recorded = [
        Recorded(CAMERA, IMAGE, START + index * PERIOD, messages.rgb(START + index * PERIOD, picture))
        for index, picture in enumerate(pictures)
    ]
    recorded += [
        Recorded(BOXES, DETECTIONS, one.logged + 1, messages.detections(one.logged, [("t", (20, 20, 60, 60))]))
        for one in recorded
    ]
    source = bag(tmp_path / "drive", "mcap", messages, iter(sorted(recorded, key=lambda one: one.logged)))
    box = ",".join(map(str, SCENE.view(0).box))
    with pytest.raises(GarImageError, match="frame 1 is 200x100, the first 200x150"):
        ask(source, "--box", f"0={box}", "-q", QUESTION, "--every", "1")
    lines, _ = ask(source, "--detections", BOXES, "-q", QUESTION, "--every", "1")
    assert [line["frame"] for line in lines] == [0, 1]


def test_an_image_in_which_nothing_was_detected(tmp_path: Path) -> None:
    messages = Messages()
    recorded = [
        Recorded(CAMERA, IMAGE, START, messages.rgb(START, SCENE.view(0).image)),
        Recorded(BOXES, DETECTIONS, START + 1, messages.detections(START, [])),
    ]
    out = tmp_path / "answers.mcap"
    source = bag(tmp_path / "drive", "mcap", messages, iter(recorded))
    lines, said = ask(source, "--detections", BOXES, "-q", QUESTION, "--out", str(out))
    assert not lines
    assert said.strip() == "0 frames answered"
    ((_, drawn),) = read_messages(out)["/gar_edge/annotations"]  # which takes the last frame's away in a viewer
    assert not drawn.texts
