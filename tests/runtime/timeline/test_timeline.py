"""Files of a timeline: lines at once, a page that stays small, and places that cannot be written."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gar_edge.runtime.errors import GarImageError
from gar_edge.runtime.timeline.entry import Entry, JsonLines, Moment
from gar_edge.runtime.timeline.page import MOST, TimelinePage
from gar_edge.runtime.video.capture import VideoFrame

IMAGE = np.full((30, 40, 3), 90, np.uint8)
MASK = np.zeros((30, 40), bool)
MASK[5:15, 10:30] = True


def moment(number: int) -> Moment:
    return Moment(VideoFrame(number, number / 10, IMAGE))


def entry(moment: Moment, said: str, **more: object) -> Entry:
    return Entry({**moment.fields, **more}, "What is <Prompt0>?", said, {0: MASK})


def test_lines_are_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    lines = JsonLines(path)
    lines.add(moment(3), [entry(moment(3), "a cup", text="a cup ☕")])
    assert json.loads(path.read_text()) == {"frame": 3, "time": 0.3, "text": "a cup ☕"}
    lines.close(whole=True)


def test_half_characters_of_an_answer_are_written_escaped(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "answers.jsonl")
    lines.add(moment(0), [entry(moment(0), "x", text="\ud83d")])
    lines.close(whole=True)
    assert json.loads((tmp_path / "answers.jsonl").read_text())["text"] == "\ud83d"


def test_a_stamp_keeps_its_nanoseconds() -> None:
    late = Moment(VideoFrame(0, 0.0, IMAGE), stamp=1_700_000_000_123_456_789)
    assert late.fields["stamp"] == {"sec": 1_700_000_000, "nanosec": 123_456_789}


def test_a_page_shows_frames_with_what_was_said(tmp_path: Path) -> None:
    page = TimelinePage(tmp_path / "page.html", "A <drive>")
    page.add(moment(0), [entry(moment(0), "<b>red</b>")])
    page.add(moment(1), [entry(moment(1), "one", id="a"), entry(moment(1), "two", id="b")])
    page.close(whole=True)
    text = (tmp_path / "page.html").read_text()
    assert "A &lt;drive&gt;" in text
    assert "&lt;b&gt;red&lt;/b&gt;" in text
    assert "<dt>0: a</dt><dd>one</dd>" in text
    assert "<dt>1: b</dt><dd>two</dd>" in text
    assert "<script" not in text
    assert not re.search(r'(src|href)="(?!data:)', text)  # nothing is loaded
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", text)
    assert [Image.open(io.BytesIO(base64.b64decode(one))).size for one in pictures] == [(640, 480)] * 2


def test_a_page_of_hours_has_something_of_each_part(tmp_path: Path) -> None:
    page = TimelinePage(tmp_path / "page.html", "long")
    for number in range(5 * MOST):
        page.add(moment(number), [entry(moment(number), "red")])
    page.close(whole=True)
    text = (tmp_path / "page.html").read_text()
    numbers = [int(one) for one in re.findall(r"<dt>frame (\d+) ", text)]
    assert MOST / 2 <= len(numbers) <= MOST
    assert np.ptp(np.diff(numbers)) == 0
    assert numbers[-1] >= 0.98 * 5 * MOST
    assert f"{5 * MOST} frames. One of 8 is shown" in text


def test_a_frame_that_cannot_be_decoded_has_a_place(tmp_path: Path) -> None:
    class Broken:
        number, seconds = 7, 0.7

        @property
        def image(self) -> np.ndarray:
            raise GarImageError("the image is damaged")

    page = TimelinePage(tmp_path / "page.html", "x")
    page.add(Moment(Broken()), [Entry({"frame": 7}, None, "(the image is damaged)", {})])
    page.close(whole=False)
    text = (tmp_path / "page.html").read_text()
    assert "(no picture: the image is damaged)" in text
    assert "It broke off." in text


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(GarImageError, match="cannot be written"):
        JsonLines(tmp_path / "nowhere" / "answers.jsonl")
    with pytest.raises(GarImageError, match="its folder does not exist"):
        TimelinePage(tmp_path / "nowhere" / "page.html", "x")
