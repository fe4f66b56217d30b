"""A gar-serve in a process of its own, and a client of the standard library's."""

from __future__ import annotations

import base64
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gar_edge.runtime.bundle.shipped import SHIPPED

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCRIPT = Path(__file__).parent / "run_server.py"
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]

    @property
    def events(self) -> list[tuple[str, Any]]:
        """Name and data of each event of a stream."""
        found = []
        for block in self.body.decode().strip().split("\n\n"):
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        return found


@dataclass
class Running:
    """A server that runs. lines: of its log, parsed."""

    process: subprocess.Popen[str]
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, seconds: float = 60
    ) -> Reply:
        """One request over a connection of its own; JSON where the body is not bytes."""
        connection = http.client.HTTPConnection(*self.address, timeout=seconds)
        given = dict(self.headers)
        if body is not None and not isinstance(body, bytes):
            body, given = json.dumps(body).encode(), given | JSON
        try:
            connection.request(method, path, body, given | dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("POST", path, body, headers)

    def open(self, picture: str = "scene_1") -> str:
        """The id of a scene of one of the examples."""
        data = (EXAMPLES / f"{picture}.png").read_bytes()
        reply = self.post("/v1/scenes", data, {"Content-Type": "image/png"})
        assert reply.status == 201, reply.body
        return str(reply.json["id"])

    def raw(self) -> socket.socket:
        """A connection for requests that no library would make."""
        return socket.create_connection(self.address, timeout=30)

    def line(self, **fields: Any) -> dict[str, Any]:
        """The newest line of the log that has these fields, once it is there."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for line in reversed(self.lines):
                if fields.items() <= line.items():
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no line of {fields}")

    def memory(self) -> int:
        """Resident bytes of the process."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
        raise AssertionError("no such line")

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def serving(*, bundle: Path = SHIPPED, **settings: Any) -> Iterator[Running]:
    """A server with settings of `run_server.py`."""
    given = json.dumps({"bundle": str(bundle), **settings})
    with started([sys.executable, str(SCRIPT), given]) as running:
        yield running


@contextmanager
def started(command: list[str]) -> Iterator[Running]:
    """A server by its command line, once it says where it is."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said: list[str] = []
    url = None
    for line in process.stderr:
        said.append(line)
        if match := re.search(r"at (http://\S+)", line):
            url = match[1]
            break
    assert url is not None, "".join(said)
    running = Running(process, url)
    readers = [
        threading.Thread(target=_read_log, args=(process, running.lines), daemon=True),
        threading.Thread(target=process.stderr.read, daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for reader in readers:
            reader.join(5)


def _read_log(process: subprocess.Popen[str], lines: list[dict[str, Any]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(json.loads(line))


def data_url(path: Path) -> str:
    """A picture's file as requests carry it."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def mask(picture: str, number: int) -> dict[str, str]:
    """A region: one of an example's masks."""
    return {"mask": data_url(EXAMPLES / f"{picture}_mask_{number}.png")}
