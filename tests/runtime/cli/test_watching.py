"""`gar-run VIDEO`: which frames are asked about, where their regions are, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from helpers.video_files import LEFT, SIDE, UPPER, FakeCamera, cut_short, square_frame, square_mask, write_video
from PIL import Image
from typer.testing import CliRunner

from gar_edge.runtime import Gar, GarError, GarImageError, GarMaskError, Options
from gar_edge.runtime.cli.run import app
from gar_edge.runtime.cli.terminal import Interrupted

BOX = f"{LEFT},{UPPER},{LEFT + SIDE},{UPPER + SIDE}"
TOKENS = 4


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a square that moves 30 pixels a second."""
    return write_video(tmp_path_factory.mktemp("film") / "film.avi", map(square_frame, range(60)))


def watch(bundle: Path, source: Path | str, *arguments: str) -> list[dict[str, object]]:
    """The JSON lines; raises what the command raises."""
    command = [str(source), *arguments, "-m", str(bundle), "--max-new-tokens", str(TOKENS), "--json"]
    done = CliRunner().invoke(app, command, standalone_mode=False)
    if done.exception is not None:
        done.exception.output = done.stdout  # type: ignore[attr-defined]
        raise done.exception
    return [json.loads(line) for line in done.stdout.splitlines()]


def numbers(lines: list[dict[str, object]]) -> list[object]:
    return [line["frame"] for line in lines]


def frame_of(film: Path, number: int) -> np.ndarray:
    capture = cv2.VideoCapture(str(film))
    for _ in range(number + 1):
        _, frame = capture.read()
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def save_masks(folder: Path, masks: dict[str, np.ndarray]) -> str:
    folder.mkdir()
    for name, mask in masks.items():
        Image.fromarray(mask).save(folder / name)
    return str(folder)


def test_the_region_of_the_first_frame_is_followed(film: Path, tiny_bundle: Path) -> None:
    lines = watch(tiny_bundle, film, "--box", BOX, "--every", "20")
    assert numbers(lines) == [0, 20, 40]
    assert [line["time"] for line in lines] == pytest.approx([0, 2 / 3, 4 / 3], abs=1e-3)
    for line in lines:
        step = int(str(line["frame"]))
        expected = [LEFT + step, UPPER, LEFT + step + SIDE, UPPER + SIDE]
        np.testing.assert_allclose(line["boxes"]["1"], expected, atol=2)  # type: ignore[index]
        assert set(line) == {"frame", "time", "boxes", "text", "finish_reason", "milliseconds", "value"}


def test_answers_are_those_about_the_frame_as_a_picture(film: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    folder = save_masks(tmp_path / "masks", {f"m_{step:04}.png": square_mask(step) for step in range(0, 60, 25)})
    question = "Is <Prompt0> red?"
    lines = watch(tiny_bundle, film, "--masks", folder, "--every", "25", "-q", question)
    assert numbers(lines) == [0, 25, 50]
    gar, options = Gar.load(tiny_bundle), Options(max_new_tokens=TOKENS)
    for line in lines:
        step = int(str(line["frame"]))
        scene = gar.open(frame_of(film, step))
        assert line["text"] == scene.ask(question, {0: square_mask(step)}, options=options).text
        assert line["boxes"] == {"0": [LEFT + step, UPPER, LEFT + step + SIDE, UPPER + SIDE]}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [((), [0, 30]), (("--fps", "4"), [0, 8, 15, 23, 30, 38, 45, 53]), (("--every", "59"), [0, 59])],
)
def test_which_frames_are_asked_about(
    film: Path, tiny_bundle: Path, arguments: tuple[str, ...], expected: list[int]
) -> None:
    assert numbers(watch(tiny_bundle, film, "--box", BOX, "--box-as-mask", *arguments)) == expected


def test_plain_lines_and_a_label(film: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    labels = np.where(square_mask(0), 3, 1).astype(np.uint8)
    folder = save_masks(tmp_path / "labels", {"0.png": labels, "30.png": labels})
    command = [str(film), "--masks", f"2={folder}#3", "-m", str(tiny_bundle), "--max-new-tokens", "4"]
    done = CliRunner().invoke(app, command, standalone_mode=False)
    assert done.exception is None, done.exception
    assert [line[:12] for line in done.stdout.splitlines()] == ["    0.00 s  ", "    1.00 s  "]
    assert "2 frames answered" in done.stderr


def test_frames_that_do_not_show_a_region_get_a_line_and_the_run_goes_on(
    film: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    masks = {f"{step}.png": square_mask(step) & (step not in (10, 20, 40)) for step in range(0, 60, 10)}
    folder = save_masks(tmp_path / "masks", masks)
    lines = watch(tiny_bundle, film, "--masks", folder, "--every", "10")
    assert numbers(lines) == [0, 10, 30, 40, 50]  # said once, not at 20 again
    assert [line.get("lost") for line in lines] == [None, [1], None, [1], None]


def test_a_region_that_is_lost_ends_the_run(tmp_path: Path, tiny_bundle: Path) -> None:
    film = write_video(tmp_path / "gone.avi", (square_frame(step, step < 20) for step in range(90)))
    with pytest.raises(GarMaskError, match=r"region 1 was lost after 0\.63 s and not seen again for 1 s") as caught:
        watch(tiny_bundle, film, "--box", BOX, "--every", "15")
    lines = [json.loads(line) for line in caught.value.output.splitlines()]  # type: ignore[attr-defined]
    assert numbers(lines) == [0, 15, 30]
    assert lines[-1]["lost"] == [1]


def test_in_real_time_answers_come_about_the_newest_frames(film: Path, tiny_bundle: Path) -> None:
    began = time.monotonic()
    lines = watch(tiny_bundle, film, "--box", BOX, "--realtime")
    assert time.monotonic() - began > 1.9
    assert 1 <= len(lines) <= 60
    assert numbers(lines) == sorted(set(numbers(lines)))


def test_the_last_frame_of_a_short_file_is_still_answered(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_video(tmp_path / "short.avi", [square_frame(0)])
    opened = Gar.open

    def slowly(*arguments: object, **options: object) -> object:
        time.sleep(0.5)
        return opened(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Gar, "open", slowly)
    assert numbers(watch(tiny_bundle, film, "--box", BOX, "--realtime")) == [0]


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterator[np.ndarray]], list[FakeCamera]]:
    """Puts a camera there, anew each time it is opened."""

    def connect(frames: Callable[[], Iterator[np.ndarray]]) -> list[FakeCamera]:
        opened: list[FakeCamera] = []

        def capture(source: object) -> FakeCamera:
            assert source == 0
            opened.append(FakeCamera(frames()))
            return opened[-1]

        monkeypatch.setattr("cv2.VideoCapture", capture)
        return opened

    return connect  # type: ignore[return-value]


def paced(count: int) -> Iterator[np.ndarray]:
    for step in range(count):
        time.sleep(0.02)
        yield square_frame(step)


def test_a_camera_that_disappears_is_an_error_after_its_answers(camera: Callable, tiny_bundle: Path) -> None:  # type: ignore[type-arg]
    opened = camera(lambda: paced(60))
    with pytest.raises(GarImageError, match="no frame came any more after 60") as caught:
        watch(tiny_bundle, "0", "--box", BOX)
    assert caught.value.output.count("\n") >= 1  # type: ignore[attr-defined]
    assert all(one.released for one in opened)


def test_ctrl_c_ends_a_camera_without_an_error(camera: Callable, tiny_bundle: Path) -> None:  # type: ignore[type-arg]
    def frames() -> Iterator[np.ndarray]:
        yield from paced(40)
        raise Interrupted

    opened = camera(frames)
    assert watch(tiny_bundle, "0", "--box", BOX)
    assert all(one.released for one in opened)
    assert not any(thread.name.startswith("gar-edge") for thread in threading.enumerate())


def test_ctrl_c_ends_a_file_as_interrupted(tmp_path: Path, tiny_bundle: Path) -> None:
    film = write_video(tmp_path / "long.avi", (square_frame(step % 80) for step in range(1200)))
    command = [sys.executable, "-m", "gar_edge.runtime.cli.run", str(film), "--box", BOX, "-m", str(tiny_bundle)]
    command += ["--box-as-mask", "--every", "2", "--max-new-tokens", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"    0.00 s")
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == b"error: interrupted\n"


def test_a_video_that_ends_early_is_an_error_after_its_answers(film: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.avi"
    short.write_bytes(film.read_bytes())
    cut_short(short)
    with pytest.raises(GarImageError, match=r"ends after \d\d of 60 frames") as caught:
        watch(tiny_bundle, short, "--box", BOX, "--every", "10")
    assert caught.value.output.count("\n") >= 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "no region given"),
        (("--box", "500,0,510,9"), "lies outside"),
        (("--box", BOX, "--every", "2", "--fps", "2"), "drop one"),
        (("--box", BOX, "--fps", "0"), "greater than|range"),
        (("--box", BOX, "--interactive"), "are for pictures"),
        (("--box", BOX, "--overlay", "x.png"), "are for pictures"),
        (("--box", BOX, "-q", "What is it?"), "does not name <Prompt0>"),
        (("--box", BOX, "-q", "What is it?", "--realtime"), "does not name <Prompt0>"),
        (("--box", BOX, "--jsonl", "x"), "go together"),
    ],
)
def test_usage_errors(film: Path, tiny_bundle: Path, arguments: tuple[str, ...], part: str) -> None:
    with pytest.raises(typer.BadParameter, match=part):
        watch(tiny_bundle, film, *arguments)


def test_masks_that_are_missing(film: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    def error(folder: Path | str) -> str:
        with pytest.raises(GarError) as caught:
            watch(tiny_bundle, film, "--masks", str(folder), "--every", "30")
        assert isinstance(caught.value, GarMaskError)
        return str(caught.value)

    assert "no such folder" in error(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "1.txt").touch()
    assert "holds no picture with a frame's number" in error(empty)
    late = save_masks(tmp_path / "late", {"0.png": square_mask(0)})
    assert "no mask of frame 30" in error(late)
    (tmp_path / "late" / "000.png").touch()
    assert "0.png and 000.png" in error(late) or "000.png and 0.png" in error(late)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "0.png").write_text("not an image")
    assert "region 1: " in error(broken)
    stretched = save_masks(tmp_path / "stretched", {"0.png": square_mask(0)[:, :-20]})
    assert "of another shape" in error(stretched)


def test_a_plain_region_cannot_be_followed(tmp_path: Path, tiny_bundle: Path) -> None:
    film = write_video(tmp_path / "plain.avi", [square_frame(0, shown=False)] * 3)
    with pytest.raises(GarMaskError, match="region 1: nothing in it can be followed"):
        watch(tiny_bundle, film, "--box", BOX, "--box-as-mask")
