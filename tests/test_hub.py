"""Checkpoints by hub name, against a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from gar_edge.models.sizes import Size
from gar_edge.models.standin import write_checkpoint

TOKEN = "hf_secret"
NEWER, OLDER = "b" * 40, "a" * 40  # commits
CHUNK = 10 << 20  # the client writes what it received in pieces of this size
PRESET = replace(
    Size.NANO.preset, tile=28, vision_dim=16, vision_depth=1, vision_heads=2, hidden=16, ffn=24, layers=1, heads=4,
    kv_heads=2, head_dim=4, first_special_token=300, context=512,
)  # fmt: skip


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
                repository.stalled.wait(30)
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


# A process that downloads what it is told on stdin: huggingface_hub reads its environment when imported.
DRIVER = """
import json, sys
from gar_edge.models.hub import download, hub_checkpoint
from gar_edge.runtime.errors import GarHubError
for line in sys.stdin:
    command, *arguments = json.loads(line)
    try:
        if command == "download":
            answer = {"folder": download(*arguments)}
        else:
            found = hub_checkpoint(*arguments)
            answer = {"name": found.name, "revision": found.revision, "hidden": found.config.text.hidden}
    except GarHubError as error:
        answer = {"error": str(error)}
    except Exception as error:
        answer = {"crash": repr(error)}
    print(json.dumps(answer), flush=True)
"""


class Driver:
    """The downloading process; `home` is its Hugging Face cache."""

    def __init__(self, url: str, home: Path) -> None:
        self.home = home
        self._process = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment(url, home),
        )  # fmt: skip

    def __call__(self, command: str, *arguments: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def download(self, repository: str, *revision: str) -> Path:
        answer = self("download", repository, *revision)
        assert "folder" in answer, answer
        return Path(answer["folder"])

    def refused(self, *arguments: str) -> str:
        """The one line with which a download is refused."""
        answer = self("download", *arguments)
        assert "error" in answer, answer
        assert "\n" not in answer["error"]
        return answer["error"]

    def close(self) -> None:
        self._process.communicate(timeout=10)


def environment(url: str, home: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    own = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return inherited | own | {"HF_HUB_DISABLE_UPDATE_CHECK": "1"}


def checkpoint_files(folder: Path) -> dict[str, bytes]:
    write_checkpoint(folder, PRESET)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    files = checkpoint_files(tmp_path_factory.mktemp("source") / "GAR-tiny")
    code = {"modeling_gar.py": b"raise SystemExit", "README.md": b"text", "pytorch_model.bin": b"pickle"}
    weights = {"config.json": b"{}", "model.safetensors": os.urandom(CHUNK + (2 << 20))}
    # A repository per test, so that no test finds what another has cached.
    names = ("named", "revised", "filtered", "again", "offline")
    hub = Hub({f"org/{name}": Repository(files | code) for name in names})
    hub.repositories["org/cut"] = Repository(weights, cut_at=CHUNK + 1000)
    hub.repositories["org/reset"] = Repository(weights, cut_at=1000, reset=True)
    for name in ("killed", "damaged"):  # each with weights of its own, for the part is named by their digest
        own = weights | {"model.safetensors": os.urandom(CHUNK + (2 << 20))}
        hub.repositories[f"org/{name}"] = Repository(own, cut_at=CHUNK + 70_000, stalled=Event())
    hub.repositories["org/withheld"] = Repository(weights, withheld=True)
    hub.repositories["org/gated"] = Repository(files, gated=True)
    hub.repositories["org/empty"] = Repository({"README.md": b"nothing here"})
    hub.repositories["HaochenWang/GAR-1B"] = Repository(files)
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def driver(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(hub.url, tmp_path_factory.mktemp("hf"))
    yield driver
    driver.close()


def test_a_checkpoint_opens_by_name(driver: Driver) -> None:
    assert driver("open", "org/named") == {"name": "org/named", "revision": NEWER, "hidden": 16}


@pytest.mark.parametrize("revision", ["v1", OLDER])
def test_a_checkpoint_opens_by_name_and_revision(driver: Driver, revision: str) -> None:
    assert driver("open", "org/revised", revision) == {"name": "org/revised", "revision": OLDER, "hidden": 16}


def test_only_configs_weights_and_templates_are_fetched(driver: Driver, hub: Hub) -> None:
    folder = driver.download("org/filtered")
    expected = ["chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
                "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == expected
    assert sorted(set(hub.asked("org/filtered"))) == expected


def test_what_is_fetched_is_what_the_hub_holds(driver: Driver, hub: Hub) -> None:
    folder = driver.download("org/named")
    held = hub.repositories["org/named"].files
    assert all(path.read_bytes() == held[path.name] for path in folder.iterdir())


def test_a_cached_checkpoint_is_not_fetched_again(driver: Driver, hub: Hub) -> None:
    folder = driver.download("org/again")
    hub.requests.clear()
    assert driver.download("org/again") == folder
    assert hub.asked("org/again") == []
    assert not any(path.startswith("/blobs/") for _, path, _ in hub.requests)


def test_a_dropped_line_is_resumed_where_it_broke(driver: Driver, hub: Hub) -> None:
    hub.requests.clear()
    folder = driver.download("org/cut")
    ranges = [ranged for _, path, ranged in hub.requests if path.startswith("/blobs/")]
    assert ranges == [None, f"bytes={CHUNK}-"]
    assert (folder / "model.safetensors").read_bytes() == hub.repositories["org/cut"].files["model.safetensors"]


def test_a_reset_line_is_a_failure_and_the_next_run_completes(driver: Driver, hub: Hub) -> None:
    text = driver.refused("org/reset")
    assert text.startswith("org/reset: download failed (")
    assert "run again" in text
    folder = driver.download("org/reset")
    assert (folder / "model.safetensors").read_bytes() == hub.repositories["org/reset"].files["model.safetensors"]


def kill_halfway(driver: Driver, hub: Hub, repository: str) -> Path:
    """A download whose process is killed in the middle of the weights; what is left of them."""
    before = set(driver.home.rglob("*.part"))
    command = [sys.executable, "-c", f"from gar_edge.models.hub import download; download({repository!r})"]
    with subprocess.Popen(command, env=environment(hub.url, driver.home), stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            parts = [
                path for path in driver.home.rglob("*.part") if path not in before and path.stat().st_size >= CHUNK
            ]
            if parts:
                break
            time.sleep(0.05)
        process.kill()
    stalled = hub.repositories[repository].stalled
    assert stalled is not None
    stalled.set()
    (part,) = parts
    return part


def test_after_a_kill_the_next_run_goes_on_where_it_broke(driver: Driver, hub: Hub) -> None:
    part = kill_halfway(driver, hub, "org/killed")
    assert part.stat().st_size == CHUNK
    hub.requests.clear()
    folder = driver.download("org/killed")
    ranges = [ranged for _, path, ranged in hub.requests if path.startswith("/blobs/")]
    assert ranges == [f"bytes={CHUNK}-"]
    assert (folder / "model.safetensors").read_bytes() == hub.repositories["org/killed"].files["model.safetensors"]
    assert not part.exists()


def test_a_beginning_that_was_damaged_on_disk_is_not_kept(driver: Driver, hub: Hub) -> None:
    part = kill_halfway(driver, hub, "org/damaged")
    part.write_bytes(bytes(CHUNK))
    assert "model.safetensors arrived damaged" in driver.refused("org/damaged")
    folder = driver.download("org/damaged")
    assert (folder / "model.safetensors").read_bytes() == hub.repositories["org/damaged"].files["model.safetensors"]


def test_files_fetched_before_a_failure_are_kept(driver: Driver, hub: Hub) -> None:
    text = driver.refused("org/withheld")
    assert text.startswith("org/withheld: download failed (404 ")
    assert "run again" in text
    hub.repositories["org/withheld"].withheld = False
    hub.requests.clear()
    folder = driver.download("org/withheld")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert "config.json" not in hub.asked("org/withheld")


def test_an_unknown_repository_is_named(driver: Driver) -> None:
    text = driver.refused("org/none")
    assert text == "org/none: no such repository on the hub, or no access to it (set HF_TOKEN)"


def test_an_unknown_revision_is_named(driver: Driver) -> None:
    assert driver.refused("org/named", "v9") == "org/named: the hub has no revision 'v9'"


def test_a_name_that_cannot_be_one_is_refused(driver: Driver) -> None:
    assert driver.refused("a/b/c").startswith("a/b/c: ")


def test_a_gated_repository_names_licence_and_login(driver: Driver) -> None:
    text = driver.refused("org/gated")
    assert text.startswith("org/gated: ")
    assert "licence must be accepted" in text
    assert "HF_TOKEN" in text


def test_a_gated_repository_opens_after_the_login(driver: Driver) -> None:
    (driver.home / "token").write_text(TOKEN)  # what `hf auth login` writes
    try:
        assert driver("open", "org/gated")["hidden"] == 16
    finally:
        (driver.home / "token").unlink()


def test_a_repository_that_holds_no_checkpoint_is_a_checkpoint_error(driver: Driver) -> None:
    answer = driver("open", "org/empty")
    assert "GarCheckpointError" in answer["crash"]
    assert "config.json" in answer["crash"]


def test_a_cached_checkpoint_opens_in_a_new_process_without_the_hub(driver: Driver) -> None:
    driver.download("org/offline")
    offline = Driver(dead_url(), driver.home)
    try:
        assert offline("open", "org/offline") == {"name": "org/offline", "revision": NEWER, "hidden": 16}
        text = offline.refused("org/never-seen")
    finally:
        offline.close()
    assert text.startswith("org/never-seen: the hub cannot be reached (")
    for part in ("refused", "the cache does not hold it", "check the network", "--checkpoint"):
        assert part in text


def dead_url() -> str:
    """An address of this machine at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(scope="module")
def commands(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """`gar-export --size 1b` against a hub that is not there, and for a revision that is not; both at once."""
    runs = {}
    for name, url, arguments in [("unreachable", dead_url(), []), ("revision", hub.url, ["--revision", "v9"])]:
        home = tmp_path_factory.mktemp(name)
        command = [sys.executable, "-m", "gar_edge.export.cli", "--size", "1b", *arguments, "-o", str(home / "bundle")]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        runs[name] = subprocess.Popen(command, env=environment(url, home), text=True, **pipes)
    yield runs
    for run in runs.values():
        run.kill()
        run.communicate()


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("unreachable", "error: HaochenWang/GAR-1B: the hub cannot be reached ("),
        ("revision", "error: HaochenWang/GAR-1B: the hub has no revision 'v9'"),
    ],
)
def test_a_hub_error_ends_the_command_with_one_line_and_code_1(
    commands: dict[str, subprocess.Popen[str]], name: str, beginning: str
) -> None:
    output, errors = commands[name].communicate(timeout=60)
    assert commands[name].returncode == 1
    assert output == ""
    (line,) = errors.splitlines()
    assert line.startswith(beginning)
