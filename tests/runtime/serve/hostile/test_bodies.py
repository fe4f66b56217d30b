"""Bodies that are broken, too large, too many, or bombs: memory stays bounded, and nothing is opened for them."""

from __future__ import annotations

import base64
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.hostile import PNG, bomb, head
from helpers.serving import EXAMPLES, Running


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"messages": [',
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 300_000,
        b'{"messages":' + b"[" * 300_000 + b"]" * 300_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"messages": [{"role": "user", "content": 1e999}]}',
        b'{"messages": NaN}',
        b'{"messages": [{"role": "user", "content": [{"type": "region", "id": 1e400}]}]}',
        b'{"messages": ' + b"9" * 100_000 + b"}",
    ],
)
def test_bodies_that_are_no_request(guarded: Running, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/scenes/none/ask", "/v1/scenes"):
        reply = guarded.post(path, body, {"Content-Type": "application/json"})
        assert reply.status in (400, 404), (path, reply.body[:200])
        assert set(reply.error) == {"message", "type", "param", "code"}
        assert len(reply.body) < 2000


def test_a_body_that_is_too_large_is_refused_before_it_comes(guarded: Running) -> None:
    with guarded.raw() as connection:
        connection.sendall(head(length=1 << 40))
        assert b"413" in connection.recv(65536)


def test_a_body_that_grows_too_large_is_refused_on_the_way(guarded: Running) -> None:
    with guarded.raw() as connection:
        connection.sendall(b"POST /v1/scenes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        answer = b""
        try:
            for _ in range(40):
                connection.sendall(piece)
            answer = connection.recv(65536)
        except ConnectionError:
            answer = answer or b"413 (closed)"
        assert b"413" in answer


def test_bodies_of_many_are_bounded_together(guarded: Running) -> None:
    """Three of 1 MiB fit. While their last bytes are missing a fourth finds no room; then all three are read."""
    size = 1 << 20
    with ExitStack() as stack:
        first = [stack.enter_context(guarded.raw()) for _ in range(3)]
        for connection in first:
            connection.sendall(head(length=size) + bytes(size - 1))
        time.sleep(0.3)
        fourth = stack.enter_context(guarded.raw())
        fourth.sendall(head(length=size) + bytes(size))
        assert b" 429 " in fourth.recv(65536)[:20]
        for connection in first:
            connection.sendall(b"x")
            assert b" 400 " in connection.recv(65536)[:20]  # no picture
        fifth = stack.enter_context(guarded.raw())
        fifth.sendall(head(length=size) + bytes(size))
        assert b" 400 " in fifth.recv(65536)[:20]


def test_bodies_that_come_side_by_side_do_not_starve_each_other(guarded: Running) -> None:
    """Eight of 1 MiB at once, where three fit: the others wait until there is room, and all are read."""
    statuses: list[int] = []

    def send() -> None:
        statuses.append(guarded.post("/v1/scenes", bytes(1 << 20), PNG).status)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [400] * 8


def test_announcing_takes_nothing(guarded: Running) -> None:
    """Sixteen heads of large bodies that do not come leave room and places for everybody."""
    with ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(guarded.raw()).sendall(head(length=1 << 20))
        assert guarded.post("/v1/scenes", (EXAMPLES / "scene_1.png").read_bytes(), PNG).status == 201


def test_json_of_too_many_values_is_not_parsed(guarded: Running) -> None:
    key = guarded.open()
    body = b'{"question":"a","regions":[' + b"[]," * 250_000 + b"[]]}"
    reply = guarded.post(f"/v1/scenes/{key}/ask", body, {"Content-Type": "application/json"})
    assert (reply.status, "values" in reply.error["message"]) == (400, True)


def test_a_conversation_that_is_too_long_is_not_tokenised(guarded: Running) -> None:
    key = guarded.open()
    turns = [{"question": "Is <Prompt0> red?", "answer": "y" * 30_000}] * 3
    body = {"regions": [{"box": [5, 5, 60, 60]}], "turns": turns, "question": "Is <Prompt0> red?"}
    begin = time.monotonic()
    assert "characters" in guarded.post(f"/v1/scenes/{key}/chat", body).error["message"]
    assert time.monotonic() - begin < 5


def test_points_and_masks_have_limits_of_their_own(guarded: Running) -> None:
    key = guarded.open()
    points = [[number % 200, number % 150] for number in range(1001)]
    asked = {"question": "What is <Prompt0>?", "regions": [{"points": points}]}
    assert "1000 points" in guarded.post(f"/v1/scenes/{key}/ask", asked).error["message"]


@pytest.mark.parametrize("size", [(50_000, 50_000), (1 << 20, 1), (400, 300)])
def test_pictures_of_too_many_pixels_are_never_decoded(guarded: Running, size: tuple[int, int]) -> None:
    before = guarded.memory()
    reply = guarded.post("/v1/scenes", bomb(*size), PNG)
    assert reply.status == 400
    assert "pixels" in reply.error["message"]
    assert guarded.memory() - before < 64 << 20


def test_a_mask_of_too_many_pixels(guarded: Running) -> None:
    key = guarded.open()
    region = {"mask": f"data:image/png;base64,{base64.b64encode(bomb(50_000, 50_000)).decode()}"}
    reply = guarded.post(f"/v1/scenes/{key}/ask", {"question": "What is <Prompt0>?", "regions": [region]})
    assert reply.status == 400
    assert "pixels" in reply.error["message"]


def test_pictures_are_not_looked_for_in_files(guarded: Running, tmp_path: Path) -> None:
    """A name where a picture is due is refused, however it is written."""
    (tmp_path / "secret.png").write_bytes((EXAMPLES / "scene_1.png").read_bytes())
    key = guarded.open()
    for name in (str(tmp_path / "secret.png"), f"file://{tmp_path}/secret.png", "examples/scene_1_mask_0.png"):
        for region in ({"mask": name}, {"scribble": name}, {"mask": name, "label": 1}):
            reply = guarded.post(f"/v1/scenes/{key}/ask", {"question": "What is <Prompt0>?", "regions": [region]})
            assert reply.status == 400
            assert "data: URL" in reply.error["message"]
