"""examples/serve_ray.py: two replicas, of which one is killed while it is asked."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.examples import COLOUR, MASK, PICTURE
from helpers.needs import RAY
from helpers.serving import data_url, mask

from gar_edge.runtime import Gar
from gar_edge.runtime.bundle.shipped import SHIPPED

pytest.importorskip("ray.serve", reason=RAY)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[psutil.Process, int]]:
    """The example's process, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, str(ROOT / "examples" / "serve_ray.py"), "--port", str(port), "-m", str(SHIPPED)]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT) as process:
        try:
            end = time.monotonic() + 120
            while f"at http://127.0.0.1:{port}" not in log.read_text().splitlines():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)
            yield psutil.Process(process.pid), port
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()  # nothing, where it has ended: a failure must not wait for it


def ask(port: int) -> tuple[int, Any]:
    """A question about the first example's picture: status, and the answer's text."""
    content = [
        {"type": "image_url", "image_url": {"url": data_url(ROOT / PICTURE)}},
        {"type": "region", "id": 0, **mask("scene_1", 0)},
        {"type": "text", "text": COLOUR},
    ]
    body = json.dumps({"model": "gar-nano-fp32", "messages": [{"role": "user", "content": content}]})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        text = reply.read()
    finally:
        connection.close()
    return reply.status, json.loads(text)["choices"][0]["message"]["content"] if reply.status == 200 else text


def replicas(process: psutil.Process) -> dict[int, psutil.Process]:
    """The processes below the example's that hold a model."""
    found = {}
    for child in process.children(recursive=True):
        try:
            if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::ServeReplica:regions:Regions"):
                found[child.pid] = child
        except psutil.Error:
            continue
    return found


def test_a_killed_replica_is_replaced_and_the_other_answers_meanwhile(served: tuple[psutil.Process, int]) -> None:
    process, port = served
    with Gar.load(SHIPPED, threads=1) as gar:
        truth = gar.open(ROOT / PICTURE).ask(COLOUR, {0: ROOT / MASK[0]}).text
    assert ask(port) == (200, truth)
    before = replicas(process)
    assert len(before) == 2
    killed = next(iter(before))
    os.kill(killed, signal.SIGKILL)
    end, answers = time.monotonic() + 90, 0
    while time.monotonic() < end:
        status, text = ask(port)
        assert status != 200 or text == truth
        answers += status == 200
        now = replicas(process)
        if len(now) == 2 and killed not in now and answers >= 10:
            break
        time.sleep(0.1)
    assert len(replicas(process)) == 2
    assert answers >= 10
    assert [ask(port) for _ in range(6)] == [(200, truth)] * 6


def test_health_and_errors_come_through_the_proxy(served: tuple[psutil.Process, int]) -> None:
    _, port = served
    found = {}
    for path in ("/healthz", "/readyz", "/v1/models", "/nothing"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        found[path] = connection.getresponse().status
        connection.close()
    assert found == {"/healthz": 200, "/readyz": 200, "/v1/models": 200, "/nothing": 404}
