"""Checkpoints by hub name, against a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import inspect
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fakes.hub import CHUNK, NEWER, OLDER, PATIENCE, TOKEN, Hub, Repository

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
        self._process.communicate(timeout=PATIENCE)


def environment(url: str, home: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    own = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return inherited | own | {"HF_HUB_DISABLE_UPDATE_CHECK": "1"}


@pytest.fixture(scope="module")
def hub(checkpoint_folder: Path) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in checkpoint_folder.iterdir()}
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
    parts: list[Path] = []
    with subprocess.Popen(command, env=environment(hub.url, driver.home), stderr=subprocess.DEVNULL) as process:
        while not parts and process.poll() is None:
            time.sleep(0.05)
            parts = [
                path for path in driver.home.rglob("*.part") if path not in before and path.stat().st_size >= CHUNK
            ]
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
    output, errors = commands[name].communicate(timeout=PATIENCE)
    assert commands[name].returncode == 1
    assert output == ""
    (line,) = errors.splitlines()
    assert line.startswith(beginning)


def test_the_hub_library_still_has_what_resuming_needs() -> None:
    """Two functions that it does not document: a version that changes them should fail here, not on a robot."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock

    taken = inspect.signature(http_get).parameters
    assert list(taken)[:2] == ["url", "temp_file"]
    assert {"resume_size", "headers", "expected_size", "displayed_filename"} <= taken.keys()
    assert callable(WeakFileLock)
