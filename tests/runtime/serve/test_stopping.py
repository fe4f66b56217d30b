"""SIGTERM: no more is taken, what is here is finished or cut off at the deadline, and the exit code is 0."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.serving import Reply, Running, mask, serving, started
from PIL import Image

from gar_edge.runtime import Gar
from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.serve.app import create_app

DESCRIBE = {"regions": [mask("scene_1", 0)]}


def _asking(
    server: Running, key: str, count: int, body: dict[str, object]
) -> tuple[list[threading.Thread], list[Reply]]:
    replies: list[Reply] = []

    def ask() -> None:
        replies.append(server.post(f"/v1/scenes/{key}/describe", body))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, replies


def _wait_for(server: Running, inside: int) -> None:
    while True:
        page = server.ask("GET", "/metrics").body.decode()
        counts = dict(line.rsplit(" ", 1) for line in page.splitlines() if line.startswith(("gar_waiting", "gar_in_")))
        if sum(map(float, counts.values())) >= inside:
            return
        time.sleep(0.02)


def test_what_was_accepted_is_answered() -> None:
    with serving(step=0.05, batch=2) as server:
        key = server.open()
        whole = server.post(f"/v1/scenes/{key}/describe", DESCRIBE).json["answers"][0]
        threads, replies = _asking(server, key, 8, DESCRIBE)
        _wait_for(server, 8)
        assert server.stop() == 0
        for thread in threads:
            thread.join()
        assert [reply.json["answers"][0]["tokens"] for reply in replies] == [whole["tokens"]] * 8


def test_at_the_deadline_answers_are_cut_off_and_told() -> None:
    with serving(step=0.2, batch=2, limits={"stop_seconds": 1.0}) as server:
        key = server.open()
        threads, replies = _asking(server, key, 3, DESCRIBE)
        streams, streamed = _asking(server, key, 1, DESCRIBE | {"stream": True})
        _wait_for(server, 4)
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 4
        for thread in (*threads, *streams):
            thread.join()
        reasons = [reply.json["answers"][0]["finish_reason"] for reply in replies]
        assert len(reasons) == 3
        assert set(reasons) <= {"cancelled", "stop"}
        assert "cancelled" in reasons
        assert streamed[0].events[-1] == ("end", {})


def test_while_it_stops_nobody_listens_any_more() -> None:
    with serving(step=0.1, batch=1) as server:
        key = server.open()
        threads, replies = _asking(server, key, 2, DESCRIBE)
        _wait_for(server, 2)
        server.process.send_signal(signal.SIGTERM)
        server.line(event="stopping")
        time.sleep(0.5)
        with pytest.raises(ConnectionError):
            server.ask("GET", "/readyz", seconds=5)
        assert server.process.wait(20) == 0
        for thread in threads:
            thread.join()
        assert [reply.status for reply in replies] == [200, 200]


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/readyz", 503), ("POST", "/v1/chat/completions", 503), ("GET", "/healthz", 200), ("GET", "/v1/models", 200)
])  # fmt: skip
def test_while_it_stops_those_who_are_connected_are_told_so(direct: Gar, method: str, path: str, status: int) -> None:
    """The application itself, as connections that are still open reach it."""
    served = create_app(direct, queue=4)
    served.service.admission.stopping = True
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2), "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }  # fmt: skip
    asyncio.run(served.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == status


def test_work_on_regions_ends_when_its_client_leaves() -> None:
    """Thirty boxes cut out of a large picture take a minute or so; nobody waits for them after half a second."""
    with serving() as server:
        picture = io.BytesIO()
        random = np.random.default_rng(0)
        Image.fromarray(random.integers(0, 256, (1500, 2000, 3), np.uint8)).save(picture, "PNG", compress_level=1)
        key = server.post("/v1/scenes", picture.getvalue(), {"Content-Type": "image/png"}).json["id"]
        body = json.dumps({"regions": [{"box": [10, 10, 1990, 1490]}] * 30}).encode()
        path = f"/v1/scenes/{key}/outline"
        about = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        request = f"POST {path} HTTP/1.1\r\n{about}\r\n\r\n"
        for _ in range(3):  # one more than there are threads for it
            with server.raw() as connection:
                connection.sendall(request.encode() + body)
                time.sleep(0.5)
        begin = time.monotonic()
        server.open()
        assert time.monotonic() - begin < 20  # the boxes that were begun, not the ninety
        assert server.line(status=499)["route"].endswith("/outline")
        assert server.stop(20) == 0


def test_work_on_regions_has_a_time_limit() -> None:
    with serving(limits={"seconds": 0.001}) as server:
        key = server.open()
        body = {"regions": [{"box": [5, 5, 200, 160]}] * 8}
        reply = server.post(f"/v1/scenes/{key}/outline", body)
        assert reply.status == 400
        assert "0.001 s" in reply.error["message"]


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    """The reader of standard output leaves after the first line; the server answers on, and ends when it is told to."""
    command = [sys.executable, "-m", "gar_edge.runtime.cli.serve", "-m", str(SHIPPED), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    url = re.search(r"at (http://\S+)", process.stderr.readline())
    assert url is not None
    process.stdout.readline()
    process.stdout.close()
    running = Running(process, url[1])
    for _ in range(3):
        assert running.ask("GET", "/v1/models").status == 200
    assert running.stop() == 0
    process.stderr.close()


def test_told_to_stop_while_it_loads() -> None:
    command = [sys.executable, "-m", "gar_edge.runtime.cli.serve", "-m", str(SHIPPED), "--port", "0"]
    for wait in (0.8, 1.2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(wait)
            process.terminate()
            _, said = process.communicate(timeout=20)
            assert process.returncode in (0, 1, -15)  # 1, -15: before the command itself had begun
            assert "Traceback" not in said


def test_hanging_up_reads_the_keys_again(tmp_path: Path) -> None:
    first, second = "0123456789abcdef-one", "0123456789abcdef-two"
    file = tmp_path / "keys"
    file.write_text(first)
    file.chmod(0o600)
    command = [sys.executable, "-m", "gar_edge.runtime.cli.serve", "-m", str(SHIPPED), "--port", "0"]
    with started([*command, "--api-key-file", str(file)]) as server:

        def status(key: str) -> int:
            return server.ask("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"}).status

        assert (status(first), status(second)) == (200, 401)
        file.write_text(second)
        server.process.send_signal(signal.SIGHUP)
        server.line(event="keys read")
        assert (status(first), status(second)) == (401, 200)
        file.write_text("short")
        server.process.send_signal(signal.SIGHUP)
        assert "keys" in server.line(event="keys kept")["why"]
        assert status(second) == 200
        assert server.stop() == 0
