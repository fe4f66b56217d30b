"""Names of pictures: what is a file, what is refused, and what a message may say of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gar_edge.runtime.errors import GarImageError, GarMaskError
from gar_edge.runtime.files.addresses import LONGEST, beside, local_file, shown
from gar_edge.runtime.images import load_image, load_mask
from gar_edge.runtime.video.capture import Video, names_video

BASE64 = "iVBORw0KGgoAAAANSUhEUgAAAO8AAACqCAIAAADKh48x" * 40


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("file:///a/b%20c.png", "/a/b c.png"),
        ("file:/a/b.png", "/a/b.png"),  # what pathlib makes of one
        ("FILE://localhost/a.png", "/a.png"),
        ("/a/file.png", "/a/file.png"),
        ("a%20b.png", "a%20b.png"),
    ],
)
def test_file_addresses_are_files(address: str, path: str) -> None:
    assert local_file(address) == path


def test_pictures_and_masks_are_read_from_file_addresses(tmp_path: Path) -> None:
    path = tmp_path / "a picture.png"
    picture = Image.new("RGB", (4, 3), "black")
    picture.paste("white", (0, 0, 2, 1))
    picture.save(path)
    for source in (path.as_uri(), Path(path.as_uri())):
        assert load_image(source).shape == (3, 4, 3)
        assert np.argwhere(load_mask(source)).tolist() == [[0, 0], [0, 1]]
    assert not names_video(path.as_uri())
    assert names_video((tmp_path / "a.mp4").as_uri())


def test_names_within_a_file_are_beside_it() -> None:
    folder = Path("/jobs")
    assert beside(folder, "a/b.png") == Path("/jobs/a/b.png")
    assert beside(folder, "file:///a/b%20c.png") == Path("/a/b c.png")
    assert beside(folder, "/a.png") == Path("/a.png")
    assert beside(folder, "http://h/a.png") == "http://h/a.png"


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("address", ["http://h.example/a.png", "https://h.example/a?x=1", "s3://h.example/a.png"])
def test_web_addresses_are_one_line(address: str, kind: type) -> None:
    with pytest.raises(GarImageError, match=r"^(https?|s3)://h\.example/a.* not fetched .*download it"):
        load_image(kind(address))
    with pytest.raises(GarMaskError, match="not fetched"):
        load_mask(kind(address))


def test_which_addresses_are_streams() -> None:
    for picture in ("http://h/snap.jpg?size=2", "ftp://h/a.png", "s3://bucket/a.webp"):
        assert not names_video(picture)
    for stream in ("http://h/video.mjpg", "http://h:8080/stream", "rtsp://h/a.png", "http://h/a.mp4"):
        assert names_video(stream)


@pytest.mark.parametrize("source", [f"data:image/png;base64,{BASE64}", BASE64, f"/{BASE64}", "data:,x"])
def test_pictures_in_the_text_are_named_and_not_repeated(source: str) -> None:
    with pytest.raises(GarImageError) as caught:
        load_image(source)
    assert len(str(caught.value)) < 300
    assert "Rw0KGgoAAAANSUhEUgAAAO8" * 2 not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("rtsp://admin:secret@10.0.0.2:554/h264", "rtsp://***@10.0.0.2:554/h264"),
        ("rtsp://admin:sec@ret@host/x", "rtsp://***@host/x"),
        ("rtsp://admin:sec/ret@host:554/x", "rtsp://***@host:554/x"),
        ("rtsp:/admin:secret@host/x", "rtsp:/***@host/x"),
        ("rtsp://secret@[::1]:554/x", "rtsp://***@[::1]:554/x"),
        ("https://me:secret@h/a.png?user=a&password=secret", "https://***@h/a.png?user=a&password=***"),
        ("rtsp://10.1.1.1/user=admin&password=secret&channel=1", "rtsp://10.1.1.1/user=admin&password=***&channel=1"),
        ("https://h/a.png?X-Token=secret", "https://h/a.png?X-Token=***"),
        ("got 'rtsp://me:secret@h' (and /a@b)", "got 'rtsp://***@h' (and /a@b)"),
        ("/home/me@work/a.png", "/home/me@work/a.png"),
        ("file:///home/me@work/a@2x.png", "file:///home/me@work/a@2x.png"),
    ],
)
def test_no_password_is_shown(address: str, said: str) -> None:
    assert shown(address) == said


def test_what_is_as_long_as_a_picture_is_cut() -> None:
    assert shown("x" * LONGEST) == "x" * 40 + f"… ({LONGEST} characters)"
    sentence = "a word and another " * 100
    assert shown(sentence) == sentence


def test_a_stream_that_cannot_be_opened_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
            return False

    monkeypatch.setattr("cv2.VideoCapture", lambda source: Closed() if source == "rtsp://me:secret@h/x" else None)
    with pytest.raises(GarImageError, match=r"^rtsp://\*\*\*@h/x: not a video"):
        Video("rtsp://me:secret@h/x")


def test_an_array_has_no_name() -> None:
    assert load_image(np.zeros((2, 2, 3), np.uint8)).shape == (2, 2, 3)
