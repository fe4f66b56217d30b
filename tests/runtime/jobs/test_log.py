"""Where answers of jobs can go: files, pipes, devices; with locks and without."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.jobs.log import JobLog


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    while True:  # until the reader has opened its end
        try:
            log = JobLog(tmp_path / "pipe")
            break
        except GarPromptError:
            continue
    with log:
        assert log.done == {}
        log.write("a", {"text": "größer"})
        log.write("b", {"error": "x" * 100_000})  # more than a pipe holds
    reader.join()
    assert [json.loads(line)["job"] for line in got[0].splitlines()] == ["a", "b"]
    assert log.done == {"a": True, "b": False}


def test_a_pipe_that_nobody_reads_is_one_line_and_no_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GarPromptError, match="pipe: nobody reads from it"):
        JobLog(tmp_path / "pipe")


def test_a_socket_behind_stdout_is_written_through() -> None:
    """As systemd gives its services."""
    ours, theirs = socket.socketpair()
    code = "from pathlib import Path\nfrom gar_edge.runtime.jobs.log import JobLog\n"
    code += "with JobLog(Path('/dev/stdout')) as log: log.write('a', {'text': 'x'})"
    with ours, theirs:
        subprocess.run([sys.executable, "-c", code], stdout=theirs, check=True)
        assert json.loads(ours.recv(1000)) == {"job": "a", "text": "x"}


def test_devices_are_written_through() -> None:
    with JobLog(Path(os.devnull)) as log:
        log.write("a", {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, Linux's disk that is always full")
def test_a_full_disk_is_named() -> None:
    with JobLog(Path("/dev/full")) as log, pytest.raises(OSError, match="No space left") as caught:
        log.write("a", {})
    assert caught.value.filename == "/dev/full"


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").touch()
    (tmp_path / "link").symlink_to(tmp_path / "out.jsonl")
    with JobLog(tmp_path / "link") as log:
        log.write("a", {})
    with JobLog(tmp_path / "link") as log:
        assert log.done == {"a": True}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_locks_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.warns(UserWarning, match=r"out\.jsonl: its file system has no locks"),
        JobLog(tmp_path / "out.jsonl") as log,
    ):
        log.write("a", {})
    assert log.done == {"a": True}


def test_a_file_that_another_run_holds_is_refused(tmp_path: Path) -> None:
    with JobLog(tmp_path / "out.jsonl"), pytest.raises(GarPromptError, match="another run is writing"):
        JobLog(tmp_path / "out.jsonl")
