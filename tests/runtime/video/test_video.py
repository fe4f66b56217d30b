"""Frames of files and cameras, and every way in which they end."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from helpers.video_files import FakeCamera, cut_short, square_frame, write_video

from gar_edge.runtime.errors import GarImageError
from gar_edge.runtime.video.capture import Video, names_video


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """One second."""
    return write_video(tmp_path / "film.avi", map(square_frame, range(30)))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("drive.mp4", True), ("DRIVE.MKV", True), ("0", True), ("/dev/video2", True), ("rtsp://robot/eye", True),
        ("photo.jpg", False), ("wave.gif", False), ("video", False),
    ],
)  # fmt: skip
def test_names(source: str, expected: bool) -> None:
    assert names_video(source) is expected


def test_a_picture_called_by_a_number_is_no_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert names_video("7")
    Path("7").touch()
    assert not names_video("7")


def test_every_frame_comes_in_order_in_rgb(film: Path) -> None:
    with Video(str(film)) as video:
        frames = list(video)
    assert [frame.number for frame in frames] == list(range(30))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(30) / 30, atol=1e-3)
    difference = np.abs(frames[7].image.astype(int) - square_frame(7))
    assert np.median(difference) < 4  # JPEG


def test_in_real_time_a_file_takes_its_own_time_and_late_frames_are_dropped(film: Path) -> None:
    began = 0.0
    numbers = []
    with Video(str(film), realtime=True) as video:
        for frame in video:
            if not frame.number:
                time.sleep(0.5)  # preparing; not yet late
                began = time.monotonic()
            if frame.number == 3:
                time.sleep(0.4)
            numbers.append(frame.number)
        assert time.monotonic() - began > 0.9
    assert numbers[:4] == [0, 1, 2, 3]
    assert 15 < len(numbers) < 30
    assert numbers == sorted(numbers)


def read(path: Path) -> int:
    with Video(str(path)) as video:
        return len(list(video))


def test_a_video_that_was_cut_short_says_so_at_its_end(film: Path) -> None:
    cut_short(film)
    with Video(str(film)) as video, pytest.raises(GarImageError, match=r"film.avi: ends after 1\d of 30 frames"):
        list(video)


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "no such video file"), (b"", "cannot|can be decoded"), (b"no video at all", "not a video that can be")],
)
def test_files_that_are_no_video(tmp_path: Path, content: bytes | None, part: str) -> None:
    path = tmp_path / "bad.avi"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GarImageError, match=part):
        read(path)


def test_a_video_without_frames(tmp_path: Path) -> None:
    with pytest.raises(GarImageError, match="can be decoded"):
        read(write_video(tmp_path / "none.avi", []))


def test_a_camera_that_disappears_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = FakeCamera(map(square_frame, range(3)))
    monkeypatch.setattr("cv2.VideoCapture", lambda source: camera)
    with Video("0") as video, pytest.raises(GarImageError, match="0: no frame came any more after 3"):
        list(video)
    assert video.live
    assert camera.released


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(GarImageError, match="camera 97: cannot be opened"):
        Video("97")


def test_frames_that_change_their_size_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [square_frame(0), square_frame(1)[:100]]
    monkeypatch.setattr("cv2.VideoCapture", lambda source: FakeCamera(frames))
    with Video("rtsp://robot/eye") as video, pytest.raises(GarImageError, match="frame 1 is of another size"):
        list(video)
