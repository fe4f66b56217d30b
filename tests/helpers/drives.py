"""Bags of one of gar-nano's moving scenes, as robots record them, and `gar-run` asking about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from helpers.bags import COMPRESSED, DETECTIONS, IMAGE, START, Kind, Messages, Recorded, write_bag
from helpers.moving_scenes import MovingScene
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from typer.testing import CliRunner

from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.cli.run import app

CAMERA, BOXES, MASKS = "/camera/image_raw", "/detections", "/masks"
PERIOD = 66_666_667  # nanoseconds: 15 frames a second
LAG = 40_000_000  # by which a detector comes after its image
SCENE = MovingScene(3)
COUNT = 30


def stamps(count: int = COUNT) -> list[int]:
    return [START + index * PERIOD for index in range(count)]


def raw(messages: Messages, stamp: int, index: int) -> Any:
    """Layouts that robots send, in turn: padded rows, another order, 16 bits."""
    picture = SCENE.view(index).image
    height, width = picture.shape[:2]
    form = index % 4
    if form == 0:
        return messages.rgb(stamp, picture)
    if form == 1:
        rows = np.concatenate([picture[..., ::-1].reshape(height, -1), np.full((height, 24), 170, np.uint8)], 1)
        return messages.image(stamp, "bgr8", (width, height), 3 * width + 24, rows.tobytes())
    if form == 2:
        alpha = np.full((height, width, 1), 9, np.uint8)
        data = np.concatenate([picture[..., ::-1], alpha], 2).tobytes()
        return messages.image(stamp, "bgra8", (width, height), 4 * width, data)
    data = (picture.astype(">u2") * 257).tobytes()
    return messages.image(stamp, "rgb16", (width, height), 6 * width, data, big_endian=True)


def compressed(messages: Messages, stamp: int, index: int) -> Any:
    suffix = (".png", ".jpg")[index % 2]
    _, data = cv2.imencode(suffix, SCENE.view(index).image[..., ::-1])
    return messages.compressed(stamp, f"rgb8; {suffix[1:]} compressed bgr8", data.tobytes())


def drive(
    messages: Messages, *, packed: bool = False, boxes: bool = True, masks: bool = False, count: int = COUNT
) -> Iterator[Recorded]:
    """Images, and what belongs to each a little later, in the order of the recorder's clock."""
    waiting: list[Recorded] = []
    for index, stamp in enumerate(stamps(count)):
        logged = stamp + 5_000_000
        yield from (one for one in waiting if one.logged < logged)
        waiting = [one for one in waiting if one.logged >= logged]
        view, make = SCENE.view(index), compressed if packed else raw
        yield Recorded(CAMERA, COMPRESSED if packed else IMAGE, logged, make(messages, stamp, index))
        if boxes:
            waiting.append(Recorded(BOXES, DETECTIONS, logged + LAG, messages.detections(stamp, [("thing", view.box)])))
        if masks:
            label = (view.mask * 3).astype(np.uint8)
            height, width = label.shape
            message = messages.image(stamp, "mono8", (width, height), width, label.tobytes())
            waiting.append(Recorded(MASKS, IMAGE, logged + LAG, message))
    yield from waiting


def bag(
    path: Path, kind: Kind, messages: Messages | None = None, recorded: Iterator[Recorded] | None = None, **form: Any
) -> Path:
    messages = messages or Messages(ros1=kind == "ros1")
    return write_bag(path, kind, messages, recorded or drive(messages, **form))


def ask(source: Path, *arguments: str) -> tuple[list[dict[str, Any]], str]:
    """Lines and what stands on stderr; raises what the command raises."""
    command = [str(source), *arguments, "-m", str(SHIPPED), "--max-new-tokens", "6", "--json"]
    done = CliRunner().invoke(app, command, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def check_answers(lines: list[dict[str, Any]], expected: list[int]) -> None:
    """Every frame has a line with its image's stamp, and at least 95 % of them the right answer."""
    assert [line["stamp"]["sec"] * 10**9 + line["stamp"]["nanosec"] for line in lines] == expected
    right = sum(line["text"] == SCENE.colour for line in lines)
    assert right >= 0.95 * len(lines)


def read_messages(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """Messages by topic with when they were logged, by another reader than wrote them."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for _, channel, message, decoded in reader.iter_decoded_messages():
            found.setdefault(channel.topic, []).append((message.log_time, decoded))
    return found
