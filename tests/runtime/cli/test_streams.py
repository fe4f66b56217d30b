"""Terminals, streams and homes as machines have them: an answer or one line, never a traceback."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.cli.streams import to_json

EXAMPLES = Path(__file__).parents[3] / "examples"
ASK = [
    "scene_1.png",
    "--mask",
    "scene_1_mask_0.png",
    "-q",
    "What colour is <Prompt0>?",
    "-m",
    SHIPPED,
    "--threads",
    "1",
]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full, Linux's disk that is always full")
COMMANDS = ("runtime.cli.run", "runtime.cli.engine", "runtime.cli.bench", "export.cli")


def module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"gar_edge.{name}", *map(str, arguments)]


def run(
    command: Sequence[str], closed: str = "", output: Path | None = None, cwd: Path = EXAMPLES, **variables: str | None
) -> subprocess.CompletedProcess[str]:
    """closed: redirections of the shell, such as `2>&-`. variables: None takes one away."""
    environment = {name: value for name, value in os.environ.items() if name not in variables}
    environment |= {name: value for name, value in variables.items() if value is not None}
    line = ["bash", "-c", f'"$@" {closed}', "bash", *command]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, check=False, encoding="latin-1")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_help_in_any_encoding(name: str, encoding: str) -> None:
    done = run(module(name, "--help"), PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout
    assert "..." in done.stdout if name == "runtime.cli.run" else True


def test_a_locale_without_unicode(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "scene_1.png", tmp_path / "Größe.png")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(module("runtime.cli.run", "Größe.png", *ASK[1:2], EXAMPLES / ASK[2], *ASK[3:]), cwd=tmp_path, **plain)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "pink", "")
    done = run(module("runtime.cli.run", "Größe2.png", *ASK[1:]), **plain)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_json_in_any_encoding_is_the_same_value() -> None:
    class Stream:
        def __init__(self, encoding: str | None) -> None:
            self.encoding = encoding

    value = {"text": "… größer \U0001f600 \ud800"}
    for encoding in ("utf-8", "latin-1", "ascii", "no-such", None):
        text = to_json(value, Stream(encoding))  # type: ignore[arg-type]
        assert json.loads(text) == value
    assert "größer" in to_json({"text": "größer"}, Stream("latin-1"))  # type: ignore[arg-type]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    done = run(module("runtime.cli.run", *ASK), closed)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == ("" if ">&- " in f"{closed} ".replace("2>&-", "") else "pink")


def test_a_closed_stderr_is_not_the_file_of_answers(tmp_path: Path) -> None:
    """The next file that is opened takes the lowest free descriptor: libraries' remarks would go into it."""
    (tmp_path / "jobs.json").write_text(json.dumps([{"image": "nowhere.png"}]))
    code = (
        "import os, sys\nfrom gar_edge.runtime.cli.streams import mend_streams\nmend_streams()\n"
        f"file = os.open({str(tmp_path / 'x')!r}, os.O_CREAT | os.O_WRONLY)\nprint(file > 2, sys.stderr is not None)"
    )
    assert run([sys.executable, "-c", code], "2>&-").stdout.strip() == "True True"


def test_interactive_without_stdin_ends_at_once() -> None:
    done = run([*module("runtime.cli.run", *ASK[:3], *ASK[5:], "--interactive")], "<&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_interactive_takes_any_bytes() -> None:
    command = module("runtime.cli.run", *ASK[:3], *ASK[5:], "--interactive")
    done = run(command, r"< <(printf 'What colour is <Prompt0>\xff?\n:nonsense\xe4\n')")
    assert done.returncode == 0
    assert done.stdout.strip()
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: :nonsense")


@needs_full
@pytest.mark.parametrize("arguments", [ASK, ["--help"]])
def test_a_full_disk_behind_stdout_is_one_line(arguments: list[object]) -> None:
    done = run(module("runtime.cli.run", *arguments), ">/dev/full")
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


@needs_full
def test_a_full_disk_behind_stderr_ends_quietly() -> None:
    assert run(module("runtime.cli.run", "nowhere.png", *ASK[1:]), "2>/dev/full").returncode == 1


@needs_full
def test_a_full_disk_behind_the_answers_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.json").write_text(json.dumps([{"image": "nowhere.png", "regions": [{"box": [1, 1, 9, 9]}]}]))
    done = run(module("runtime.cli.run", "--jobs", tmp_path / "jobs.json", "--jsonl", FULL, "-m", SHIPPED))
    assert (done.returncode, done.stderr) == (1, "error: /dev/full: No space left on device\n")


def test_no_password_on_the_command_line_comes_back() -> None:
    address = "rtsp://me:secret@127.0.0.1:1/x"
    for arguments in (
        [address, "--box", "1,1,9,9"],
        [address, address, "--box", "1,1,9,9"],
        ["x.png", "--mask", address],
    ):
        done = run(module("runtime.cli.run", *arguments, "-m", SHIPPED))
        assert done.returncode in (1, 2)
        assert done.stderr.count("\n") == 1
        assert "secret" not in done.stdout + done.stderr
        assert "127.0.0.1" in done.stderr or "x.png" in done.stderr


def test_without_home_or_name() -> None:
    """As a container runs a user id that nobody gave a name or a home."""
    command = module("runtime.cli.run", *ASK)
    if os.geteuid() == 0 and shutil.which("setpriv"):
        command = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", *command]
    done = run(command, HOME=None, XDG_DATA_HOME=None, GAR_EDGE_HOME=None, cwd=EXAMPLES)
    assert done.stdout.strip() == "pink", done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def undecodable(tmp_path: Path) -> Path:
    """A folder whose name is no UTF-8."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff\xe4d"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system refuses names that are no UTF-8 (APFS does), so there is no such folder")
    return folder


def test_folders_that_cannot_be_decoded(undecodable: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(SHIPPED, undecodable / "bundle")
    for name in (ASK[0], ASK[2]):
        shutil.copy(EXAMPLES / str(name), undecodable / str(name))
    shutil.copy(EXAMPLES / "passing.mp4", undecodable / os.fsdecode(b"v\xff.mp4"))
    asked = [undecodable / str(ASK[0]), "--mask", undecodable / str(ASK[2]), *ASK[3:5], "-m", bundle]
    done = run(module("runtime.cli.run", *asked), GAR_EDGE_HOME=str(undecodable / "home"))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "pink", "")
    video = undecodable / os.fsdecode(b"v\xff.mp4")
    done = run(module("runtime.cli.run", video, "--box", "3,23,57,77", "--fps", "1", "--json", "-m", bundle))
    assert (done.returncode, done.stdout.count("\n")) == (0, 4), done.stderr
    done = run(module("runtime.cli.run", undecodable / "nowhere.png", *asked[1:]))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert r"b\udcff\udce4d/nowhere.png: no such image file" in done.stderr
    stream = os.fsdecode(b"rtsp://127.0.0.1:1/\xff")
    done = run(module("runtime.cli.run", stream, "--box", "1,1,9,9", "-m", bundle))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_jobs_in_folders_that_cannot_be_decoded(undecodable: Path) -> None:
    Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(undecodable / "a.png")
    job = {"image": "a.png", "regions": [{"box": [2, 2, 20, 20]}]}
    (undecodable / "jobs.json").write_text(json.dumps([job]))
    paths = ["--jobs", undecodable / "jobs.json", "--jsonl", undecodable / "out.jsonl"]
    done = run(module("runtime.cli.run", *paths, "-m", SHIPPED, "--box-as-mask", "--max-new-tokens", "2"))
    assert done.returncode == 0, done.stderr
    assert "text" in json.loads((undecodable / "out.jsonl").read_text())


def test_an_interrupt_is_not_lost_in_a_finaliser() -> None:
    code = (
        "import os, signal, time, typer\n"
        "from gar_edge.runtime.cli.terminal import run_app\n"
        "class Last:\n    def __del__(self):\n        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(0.01)\n"
        "app = typer.Typer()\n"
        "@app.command()\ndef main() -> None:\n    Last()\n    time.sleep(30)\n"
        "run_app(app)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stderr) == (1, "error: interrupted\n")
