"""`gar-run VIDEO --clip`: which frames stand in the question, and the same question asked in Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from helpers.video_files import LEFT, SIDE, UPPER, FakeCamera, square_frame, square_mask, write_video
from PIL import Image
from typer.testing import CliRunner

from gar_edge.runtime import Gar, GarImageError, Options
from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.cli.run import app

QUESTION = "What colour is <Prompt0>?"
FRAMES = 60
BOX = f"0={LEFT},{UPPER},{LEFT + SIDE},{UPPER + SIDE}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a square that moves, and its masks, the last third of them empty."""
    path = tmp_path_factory.mktemp("film")
    write_video(path / "film.avi", map(square_frame, range(FRAMES)))
    (path / "masks").mkdir()
    for step in range(FRAMES):
        mask = square_mask(step) if step < 40 else np.zeros_like(square_mask(0))
        Image.fromarray(mask).save(path / "masks" / f"{step:04}.png")
    return path


def watch(source: Path | str, *arguments: str) -> list[dict[str, Any]]:
    command = [str(source), "--clip", "-q", QUESTION, *arguments, "-m", str(SHIPPED), "--max-new-tokens", "4", "--json"]
    done = CliRunner().invoke(app, command, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return [json.loads(line) for line in done.stdout.splitlines()]


def frames_of(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    while (read := capture.read())[0]:
        yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)


def test_frames_are_spread_evenly_and_answered_as_in_python(folder: Path) -> None:
    (line,) = watch(folder / "film.avi", "--masks", f"0={folder / 'masks'}", "--frames", "4")
    numbers = [0, 20, 39, 59]
    assert line["clip"]["frames"] == numbers
    np.testing.assert_allclose(line["clip"]["times"], np.array(numbers) / 30, atol=2e-3)
    assert [list(boxes) for boxes in line["clip"]["boxes"]] == [["0"], ["0"], ["0"], []]
    assert line["clip"]["experimental"] is True
    assert (line["frame"], line["boxes"]) == (59, {})
    images = list(frames_of(folder / "film.avi"))
    masks = [square_mask(step) if step < 40 else None for step in numbers]
    clip = Gar.load(SHIPPED).open_clip([images[number] for number in numbers])
    assert line["text"] == clip.ask(QUESTION, {0: masks}, options=Options(max_new_tokens=4)).text


def test_the_region_is_followed_through_all_frames(folder: Path) -> None:
    (line,) = watch(folder / "film.avi", "--box", BOX, "--frames", "3")
    for number, boxes in zip(line["clip"]["frames"], line["clip"]["boxes"], strict=True):
        expected = [LEFT + number, UPPER, LEFT + number + SIDE, UPPER + SIDE]
        np.testing.assert_allclose(boxes["0"], expected, atol=2)


def test_with_every_it_slides(folder: Path) -> None:
    lines = watch(folder / "film.avi", "--box", BOX, "--frames", "3", "--every", "10")
    assert [line["clip"]["frames"] for line in lines] == [[0, 10, 20], [10, 20, 30], [20, 30, 40], [30, 40, 50]]


def test_a_film_of_fewer_frames_than_wanted_is_asked_about_once(folder: Path, tmp_path: Path) -> None:
    short = write_video(tmp_path / "short.avi", map(square_frame, range(4)))
    for arguments in ([], ["--every", "1"]):
        (line,) = watch(short, "--masks", f"0={folder / 'masks'}", *arguments)
        assert line["clip"]["frames"] == [0, 1, 2, 3]


def test_a_clip_that_shows_no_region_says_so(folder: Path) -> None:
    lines = watch(folder / "film.avi", "--masks", f"0={folder / 'masks'}", "--frames", "2", "--every", "10")
    assert [line.get("lost") for line in lines] == [None, None, None, None, [0]]


def test_a_camera_needs_to_know_how_far_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.VideoCapture", lambda source: FakeCamera(map(square_frame, range(9))))
    with pytest.raises(typer.BadParameter, match="needs --fps or --every"):
        watch("0", "--box", BOX)


def test_a_camera_slides_in_a_thread_and_counts_what_was_late(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cv2.VideoCapture", lambda source: FakeCamera(map(square_frame, range(12))))
    command = [
        "0",
        "--clip",
        "--every",
        "2",
        "--frames",
        "3",
        "--box",
        BOX,
        "-q",
        QUESTION,
        "-m",
        str(SHIPPED),
        "--json",
    ]
    done = CliRunner().invoke(app, [*command, "--max-new-tokens", "2"], standalone_mode=False)
    assert isinstance(done.exception, GarImageError)  # the camera was unplugged
    for line in map(json.loads, done.stdout.splitlines()):
        assert len(line["clip"]["frames"]) == 3
        assert {"dropped", "late"} <= line.keys()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [(["--max-tiles", "2"], "--max-tiles is for pictures"), (["--frames", "50"], "take fewer frames")],
)
def test_what_a_clip_cannot_be(folder: Path, arguments: list[str], part: str) -> None:
    with pytest.raises(typer.BadParameter, match=part):
        watch(folder / "film.avi", "--masks", f"0={folder / 'masks'}", *arguments)
