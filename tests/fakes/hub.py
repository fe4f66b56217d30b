"""A server on this machine that speaks the hub's protocol, whose line may drop, stall and refuse."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import sys
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secret"
NEWER, OLDER = "b" * 40, "a" * 40  # commits
CHUNK = 10 << 20  # the client writes what it received in pieces of this size
PATIENCE = 600  # seconds: a busy machine takes its time to start a process


@dataclass
class Repository:
    """Files by path; `main` is the newer commit, `v1` the older."""

    files: dict[str, bytes]
    gated: bool = False
    cut_at: int | None = None  # bytes of the weights after which the line drops, once
    reset: bool = False  # drop it rudely, with a TCP reset
    stalled: Event | None = None  # instead of dropping the line, fall silent until this is set
    withheld: bool = False  # the weights are listed, but not there

    def commit(self, revision: str) -> str | None:
        return {"main": NEWER, "v1": OLDER, NEWER: NEWER, OLDER: OLDER}.get(revision)


@dataclass
class Hub:
    """The server and what it was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    blobs: dict[str, tuple[Repository, bytes]] = field(default_factory=dict)

    def start(self) -> None:
        self.server = _Server(("127.0.0.1", 0), _handler(self))
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def asked(self, repository: str) -> list[str]:
        """The files of a repository that were asked for, each time."""
        begin = f"/{repository}/resolve/"
        paths = [path.removeprefix(begin) for _, path, _ in self.requests if path.startswith(begin)]
        return [path.partition("/")[2] for path in paths]


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # those are meant
            super().handle_error(request, client_address)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path, self.headers.get("Range")))
            parts = path.strip("/").split("/")
            if parts[0] == "blobs":
                self.send_blob(*hub.blobs[parts[1]])
            elif parts[:2] == ["api", "models"] and len(parts) == 6:
                self.send_listing("/".join(parts[2:4]), parts[4], parts[5])
            elif len(parts) > 4 and parts[2] == "resolve":
                self.send_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            else:
                self.refuse(404, "EntryNotFound")

        def found(self, name: str, revision: str) -> tuple[Repository, str] | None:
            """The repository and commit; None after the refusal was sent."""
            repository = hub.repositories.get(name)
            if repository is None:
                self.refuse(404, "RepoNotFound")
                return None
            commit = repository.commit(revision)
            if commit is None:
                self.refuse(404, "RevisionNotFound")
                return None
            return repository, commit

        def send_listing(self, name: str, what: str, revision: str) -> None:
            if (found := self.found(name, revision)) is None:
                return
            repository, commit = found
            if what == "revision":
                self.send_json({"id": name, "sha": commit, "siblings": [{"rfilename": f} for f in repository.files]})
                return
            entries = []
            for path, data in repository.files.items():
                entry = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                if _large(path):
                    entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
                entries.append(entry)
            self.send_json(entries)

        def send_file(self, name: str, revision: str, path: str) -> None:
            if (found := self.found(name, revision)) is None:
                return
            repository, commit = found
            if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.refuse(401, "GatedRepo")
                return
            if repository.withheld and _large(path):
                self.refuse(404, "EntryNotFound")
                return
            data = repository.files[path]
            headers = {"X-Repo-Commit": commit}
            if _large(path):
                digest = hashlib.sha256(data).hexdigest()
                hub.blobs[digest] = (repository, data)
                headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
                # The hub keeps large files at another host, and redirects there.
                elsewhere = hub.url.replace("127.0.0.1", "localhost")
                self.reply(302, b"", headers | {"Location": f"{elsewhere}/blobs/{digest}"})
            else:
                self.reply(200, data, headers | {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

        def send_blob(self, repository: Repository, data: bytes) -> None:
            begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            headers = {}
            if begin:
                headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            cut, repository.cut_at = repository.cut_at, None
            self.reply(206 if begin else 200, data[begin:], headers, cut)
            if cut is not None and repository.stalled is not None:
                self.wfile.flush()
                repository.stalled.wait(PATIENCE)
            if cut is not None and repository.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.wfile.close()
                self.rfile.close()
                self.connection.close()
                raise ConnectionResetError

        def send_json(self, value: Any) -> None:
            self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def refuse(self, status: int, code: str) -> None:
            self.reply(status, b"", {"X-Error-Code": code})

        def reply(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:cut])

    return Handler


def _large(path: str) -> bool:
    return path.endswith(".safetensors")
