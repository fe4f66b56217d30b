"""Videos as ffmpeg writes them: variable rates, rotation tags, headers that guess. Its own decoding is the truth."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from helpers.video_files import HEIGHT, WIDTH, cut_short, square_frame

from gar_edge.runtime.errors import GarImageError
from gar_edge.runtime.video.capture import Video, VideoFrame

FRAMES = 30
# A camera that pauses: 40 ms a frame, half a second missing before the tenth, another second before the twentieth.
TIMES = [n * 0.04 + 0.5 * (n >= 10) + 1.0 * (n >= 20) for n in range(FRAMES)]
PAUSES = "setpts=(N*0.04+if(gte(N\\,10)\\,0.5\\,0)+if(gte(N\\,20)\\,1\\,0))/TB"


def ffmpeg(*arguments: str, data: bytes | None = None) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def film(path: Path, *arguments: str) -> Path:
    raw = b"".join(square_frame(step).tobytes() for step in range(FRAMES))
    form = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "1000", "-i", "-")
    ffmpeg(*form, *arguments, str(path), data=raw)
    return path


def read(path: Path) -> list[VideoFrame]:
    with Video(str(path)) as video:
        return list(video)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.mov"])
def test_times_are_the_containers_where_frames_come_unevenly(tmp_path: Path, name: str) -> None:
    """Matroska's header names a length alone, of which OpenCV makes a number of frames that are not there."""
    frames = read(film(tmp_path / name, "-vf", PAUSES, "-fps_mode", "vfr", "-enc_time_base", "1:1000"))
    assert [frame.number for frame in frames] == list(range(FRAMES))
    np.testing.assert_allclose([frame.seconds for frame in frames], TIMES, atol=2e-3)


def test_an_uneven_film_that_was_cut_short_is_told(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mkv", "-vf", PAUSES, "-fps_mode", "vfr", "-enc_time_base", "1:1000", "-g", "5")
    cut_short(path)
    with pytest.raises(GarImageError, match=r"film.mkv: ends after \d+ of \d+ frames"):
        read(path)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_pictures_are_turned_as_their_tag_says(tmp_path: Path, degrees: int) -> None:
    plain, turned = film(tmp_path / "plain.mp4", "-r", "25"), tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", str(degrees), "-i", str(plain), "-c", "copy", str(turned))
    frames = read(turned)
    height, width = (WIDTH, HEIGHT) if degrees in (90, 270) else (HEIGHT, WIDTH)
    raw = ffmpeg("-i", str(turned), "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    expected = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    assert len(frames) == len(expected)
    for frame, truth in zip(frames, expected, strict=True):
        assert frame.image.shape == truth.shape
        assert np.abs(frame.image.astype(int) - truth).mean() < 3
