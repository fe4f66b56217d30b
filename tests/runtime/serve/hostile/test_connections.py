"""Clients that are slow, idle, many, no HTTP, or gone: the server goes on answering."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
from helpers.hostile import LIMITS, PNG, closed_within, head, open_connections
from helpers.serving import Running, mask, serving
from PIL import Image


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
