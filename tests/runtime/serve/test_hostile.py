"""Clients that are slow, broken or ill-meaning: the server goes on answering, and its memory stays bounded."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from helpers.serving import EXAMPLES, Running, mask, serving
from PIL import Image

PNG = {"Content-Type": "image/png"}
LIMITS = {
    "body_bytes": 1 << 20,
    "bodies_bytes": 3 << 20,
    "pixels": 100_000,
    "header_seconds": 1.0,
    "body_seconds": 1.0,
    "idle_seconds": 1,
    "send_seconds": 1.0,
    "connections": 600,
    "room_seconds": 0.5,
}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    with serving(limits=LIMITS, queue=16) as running:
        yield running


@pytest.fixture(autouse=True)
def still_answers(guarded: Running) -> Iterator[None]:
    """Whatever a test did, the next question has its answer, and nothing unexpected was written down."""
    yield
    key = guarded.open()
    reply = guarded.post(
        f"/v1/scenes/{key}/ask", {"question": "What colour is <Prompt0>?", "regions": [mask("scene_1", 0)]}
    )
    assert reply.status == 200
    assert not [line for line in guarded.lines if "error" in line]


def head(path: str = "/v1/scenes", length: int = 10, kind: str = "image/png") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()
    )


def closed_within(connection: socket.socket, seconds: float) -> float:
    """Seconds until the server has closed; fails where it does not."""
    begin = time.monotonic()
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - begin


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes and many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(1 + (width + 7) // 8) * min(height, 1000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
            chunk(b"IDAT", rows),
            chunk(b"IEND", b""),
        )
    )


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


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: loc", b"POST /v1/scenes HTTP/1.1\r\n"])
def test_heads_that_never_end(guarded: Running, sent: bytes) -> None:
    with guarded.raw() as connection:
        connection.sendall(sent)
        assert 0.5 < closed_within(connection, 5) < 4


def test_a_head_that_trickles_has_no_more_time(guarded: Running) -> None:
    with guarded.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        begin = time.monotonic()
        try:
            for number in range(100):
                connection.sendall(f"X-{number}: 1\r\n".encode())
                time.sleep(0.1)
        except ConnectionError:
            pass
        assert time.monotonic() - begin < 4


def test_a_body_that_never_comes(guarded: Running) -> None:
    with guarded.raw() as connection:
        connection.sendall(head(length=100) + b"abc")
        assert closed_within(connection, 5) < 4


def test_a_connection_that_asks_nothing_more(guarded: Running) -> None:
    with guarded.raw() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" in connection.recv(65536)
        assert closed_within(connection, 5) < 4


def test_five_hundred_that_are_idle(guarded: Running) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(guarded.raw()) for _ in range(500)]
        assert guarded.ask("GET", "/v1/models", seconds=5).status == 200
        for connection in idle:
            closed_within(connection, 10)


def test_more_connections_than_are_taken(guarded: Running) -> None:
    with ExitStack() as stack:
        for _ in range(620):
            stack.enter_context(guarded.raw())
    time.sleep(1.5)  # until it has seen that they are gone
    assert guarded.ask("GET", "/healthz").status == 200


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


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/scenes HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/scenes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /v1/scenes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_http(guarded: Running, sent: bytes) -> None:
    with guarded.raw() as connection:
        connection.sendall(sent)
        connection.settimeout(5)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass
        assert b" 500 " not in answer[:20]


@pytest.mark.parametrize(
    "path", ["/page/../app.py", "/page/..%2fapp.py", "/page//etc/passwd", "/page/%00", "/v1/models/%ff"]
)
def test_paths_that_lead_elsewhere(guarded: Running, path: str) -> None:
    with guarded.raw() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        connection.settimeout(5)
        assert b" 404 " in connection.recv(65536)[:20]


def test_clients_that_leave_give_their_places_back() -> None:
    """A slowed engine with one place: a stream and a whole answer are aborted, and the next is not kept waiting."""
    with serving(step=0.1, batch=1, queue=4) as server:
        key = server.open()
        warm = {"question": "What colour is <Prompt0>?", "regions": [mask("scene_1", 0)], "max_new_tokens": 1}
        assert server.post(f"/v1/scenes/{key}/ask", warm).status == 200
        body = json.dumps({"regions": [mask("scene_1", 1)], "temperature": 0.0}).encode()
        for stream in (b"true", b"false"):
            asked = body[:-1] + b', "stream": ' + stream + b"}"
            with server.raw() as connection:
                connection.sendall(head(f"/v1/scenes/{key}/describe", len(asked), "application/json") + asked)
                time.sleep(0.5)
            begin = time.monotonic()
            while "gar_in_the_making 0.0" not in server.ask("GET", "/metrics").body.decode():
                assert time.monotonic() - begin < 1.0  # two steps of 0.1 s, and what asking for the metrics takes
        time.sleep(0.2)
        assert [line["status"] for line in server.lines if line.get("route", "").endswith("describe")] == [499, 499]
        assert server.post(f"/v1/scenes/{key}/ask", warm).status == 200


def test_too_many_at_once_are_told_when_to_come_again() -> None:
    with serving(step=0.05, batch=1, queue=2) as server:
        key = server.open()
        body = {"regions": [mask("scene_1", 0)]}
        found: list[tuple[int, str | None]] = []

        def ask() -> None:
            reply = server.post(f"/v1/scenes/{key}/describe", body)
            found.append((reply.status, reply.headers.get("retry-after")))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted({status for status, _ in found}) == [200, 429]
        assert all(int(after or 0) >= 1 for status, after in found if status == 429)
        assert server.post(f"/v1/scenes/{key}/describe", body).status == 200


def test_a_reader_that_does_not_read_is_dropped() -> None:
    """One large answer, and many small ones over one connection: neither is read, and the connections are closed."""
    regions = [{"box": [0, 0, 239, 170], "as_mask": True}] * 64
    with serving(limits=LIMITS | {"body_bytes": 8 << 20}) as server:
        picture = io.BytesIO()
        random = np.random.default_rng(1)
        Image.fromarray(random.integers(0, 256, (300, 300, 3), np.uint8)).save(picture, "PNG")
        key = server.post("/v1/scenes", picture.getvalue(), PNG).json["id"]
        masks = []
        for _ in range(64):
            plane = io.BytesIO()
            Image.fromarray(random.integers(0, 2, (300, 300), np.uint8).astype(bool)).save(plane, "PNG")
            masks.append({"mask": f"data:image/png;base64,{base64.b64encode(plane.getvalue()).decode()}"})
        asked = json.dumps({"regions": masks}).encode()
        with ExitStack() as stack:
            for body in (asked, json.dumps({"regions": regions}).encode()):
                connection = stack.enter_context(server.raw())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.sendall(head(f"/v1/scenes/{key}/outline", len(body), "application/json") + body)
            many = stack.enter_context(server.raw())
            many.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            many.settimeout(0.5)
            try:
                for _ in range(2000):
                    many.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
            except (TimeoutError, ConnectionError):
                pass
            end = time.monotonic() + 15
            while (held := open_connections(server)) and time.monotonic() < end:
                time.sleep(0.2)
            assert held == 0
        assert server.ask("GET", "/healthz").status == 200
        assert server.stop() == 0


def open_connections(server: Running) -> int:
    """Connections of the server to clients, by what it has open."""
    folder = Path(f"/proc/{server.process.pid}/fd")
    sockets = [os.readlink(entry) for entry in folder.iterdir()]
    table = Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]
    port = f":{server.address[1]:04X}"
    rows = [line.split() for line in table]
    here = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == "01"}
    return len(here & set(sockets))


def test_pictures_are_not_looked_for_in_files(guarded: Running, tmp_path: Path) -> None:
    """A name where a picture is due is refused, however it is written."""
    (tmp_path / "secret.png").write_bytes((EXAMPLES / "scene_1.png").read_bytes())
    key = guarded.open()
    for name in (str(tmp_path / "secret.png"), f"file://{tmp_path}/secret.png", "examples/scene_1_mask_0.png"):
        for region in ({"mask": name}, {"scribble": name}, {"mask": name, "label": 1}):
            reply = guarded.post(f"/v1/scenes/{key}/ask", {"question": "What is <Prompt0>?", "regions": [region]})
            assert reply.status == 400
            assert "data: URL" in reply.error["message"]
