"""What ill-meaning and broken clients send, and what becomes of their connections."""

from __future__ import annotations

import os
import socket
import struct
import time
import zlib
from pathlib import Path

from helpers.serving import Running

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


def open_connections(server: Running) -> int:
    """Connections of the server to clients, by what it has open."""
    folder = Path(f"/proc/{server.process.pid}/fd")
    sockets = [os.readlink(entry) for entry in folder.iterdir()]
    table = Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]
    port = f":{server.address[1]:04X}"
    rows = [line.split() for line in table]
    here = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == "01"}
    return len(here & set(sockets))
