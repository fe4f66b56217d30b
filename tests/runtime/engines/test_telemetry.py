"""ONNX Runtime's telemetry is off, and nobody else's environment is changed for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.needs import STRACE

from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.files.paths import HOME

VARIABLE = "ORT_DISABLE_TELEMETRY"
STAND_IN = f"""\
import os
print("imported with", os.environ.get({VARIABLE!r}))
def disable_telemetry_events(): print("disabled")
"""
EXAMPLES = Path(__file__).parents[3] / "examples"
LONG = 12  # seconds after which ONNX Runtime's telemetry would have called
IMPORT = (
    "import os\nfrom gar_edge.runtime.engines.telemetry import import_onnxruntime\n"
    f"import_onnxruntime(); print('afterwards', os.environ.get({VARIABLE!r}))"
)


def environment(**variables: str) -> dict[str, str]:
    """Variables as they are here, without our choice; one that is empty is not there."""
    changed = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
    return {name: value for name, value in changed.items() if value}


def python(code: str, **variables: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def traced(code: str, calls: Path, **variables: str) -> list[str]:
    """The calls to do with networks that Python makes for the code, in all its threads and children."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip(STRACE)
    command = [strace, "-f", "-qqq", "-e", "trace=%network", "-e", "signal=none", "-o", str(calls), sys.executable]
    done = subprocess.run(
        [*command, "-c", code], env=environment(**variables), capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("strace may not look into processes here")
    assert done.returncode == 0, done.stderr
    return calls.read_text().splitlines()


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """A folder with a module `onnxruntime` that says what it sees."""
    (tmp_path / "onnxruntime.py").write_text(STAND_IN)
    return str(tmp_path)


def test_the_variable_is_set_while_it_is_imported_and_no_longer(stand_in: str) -> None:
    said = python(f"import sys; sys.path.insert(0, {stand_in!r})\n{IMPORT}")
    assert said.splitlines() == ["imported with 1", "disabled", "afterwards None"]


def test_who_has_chosen_keeps_the_choice(stand_in: str) -> None:
    said = python(f"import sys; sys.path.insert(0, {stand_in!r})\n{IMPORT}", **{VARIABLE: "0"})
    assert said.splitlines() == ["imported with 0", "afterwards 0"]


def test_one_that_was_imported_before_is_told(stand_in: str) -> None:
    said = python(f"import sys; sys.path.insert(0, {stand_in!r})\nimport onnxruntime\n{IMPORT}")
    assert said.splitlines() == ["imported with None", "disabled", "afterwards None"]


ANSWER = f"""\
import time
from gar_edge.runtime import Gar
scene = Gar.load({str(SHIPPED)!r}, backend="onnxruntime", threads=1).open({str(EXAMPLES / "scene_1.png")!r})
assert scene.describe({str(EXAMPLES / "scene_1_mask_0.png")!r}).text
time.sleep({LONG})
"""
EXPORT = (
    "import sys, torch._dynamo, torch.export\nimport gar_edge.export.cli, gar_edge.export.bundle_writer\n"
    "import gar_edge.export.quantise\nassert 'onnxruntime' not in sys.modules, 'imported'"
)


def at_home(home: Path) -> dict[str, str]:
    """An environment in which everything that a user's programs keep lies below one folder."""
    (home / "tmp").mkdir()
    return {"HOME": str(home), "TMPDIR": str(home / "tmp"), "XDG_CACHE_HOME": "", "XDG_DATA_HOME": "", HOME: ""}


def test_an_answer_leaves_no_file_but_ours_and_looks_up_no_name(tmp_path: Path) -> None:
    """1.29 and newer write `.cache/Microsoft/…/deviceid` when they are imported, and look up a host 9 seconds later."""
    calls = traced(ANSWER, tmp_path / "calls", **at_home(tmp_path))
    (tmp_path / "calls").unlink()
    files = [file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()]
    assert all(file.parts[:3] == (".local", "share", "gar-edge") for file in files), files
    assert calls == []


def test_a_name_that_is_looked_up_is_seen(tmp_path: Path) -> None:
    """Otherwise the test above would show nothing."""
    look_up = "import contextlib, socket\nwith contextlib.suppress(OSError): socket.getaddrinfo('gar-edge.invalid', 80)"
    assert traced(look_up, tmp_path / "calls")


def test_exporting_imports_it_by_no_other_way() -> None:
    """Torch knows it, and must not bring it along; calibration and validation go through ours."""
    python(EXPORT)


def test_nothing_else_imports_it() -> None:
    rooms = [Path(__file__).parents[3] / room for room in ("calibration", "export", "models", "runtime")]
    for file in (file for room in rooms for file in room.rglob("*.py")):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip() == "import onnxruntime"]
        inside = "if TYPE_CHECKING:\n    import onnxruntime\n" in file.read_text(encoding="utf-8")
        assert len(lines) == (file.name == "telemetry.py") + inside, file
