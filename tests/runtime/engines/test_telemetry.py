"""ONNX Runtime's telemetry is off, and nobody else's environment is changed for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gar_edge.runtime.bundle.shipped import SHIPPED

VARIABLE = "ORT_DISABLE_TELEMETRY"
STAND_IN = f"""\
import os
print("imported with", os.environ.get({VARIABLE!r}))
def disable_telemetry_events(): print("disabled")
"""
IMPORT = (
    "import os\nfrom gar_edge.runtime.engines.telemetry import import_onnxruntime\n"
    f"import_onnxruntime(); print('afterwards', os.environ.get({VARIABLE!r}))"
)


def python(code: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


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


def test_answering_leaves_no_identifier_in_the_home(tmp_path: Path) -> None:
    """1.29 and newer write `.cache/Microsoft/…/deviceid` as soon as they are imported."""
    code = f"from gar_edge.runtime import Gar\nGar.load({str(SHIPPED)!r}, backend='onnxruntime', threads=1).close()"
    python(code, HOME=str(tmp_path), GAR_EDGE_HOME=str(tmp_path / "gar-edge"))
    files = [file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()]
    assert all(file.parts[0] == "gar-edge" for file in files), files


def test_nothing_else_imports_it() -> None:
    rooms = [Path(__file__).parents[3] / room for room in ("calibration", "export", "models", "runtime")]
    for file in (file for room in rooms for file in room.rglob("*.py")):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip() == "import onnxruntime"]
        inside = "if TYPE_CHECKING:\n    import onnxruntime\n" in file.read_text(encoding="utf-8")
        assert len(lines) == (file.name == "telemetry.py") + inside, file
