"""The first command on a fresh machine: no bundle yet."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from gar_edge.runtime.cli import first_run
from gar_edge.runtime.errors import GarBundleError
from gar_edge.runtime.files.paths import HOME, last_bundle

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_gar_run_exports_nano_once_and_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME, str(tmp_path))

    def ask() -> subprocess.CompletedProcess[str]:
        arguments = ["scene_1.png", "--mask", "scene_1_mask_0.png", "-q", "What colour is <Prompt0>?"]
        command = [sys.executable, "-m", "gar_edge.runtime.cli.run", *arguments]
        return subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=False)

    first = ask()
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == "pink"
    assert "exporting gar-nano once" in first.stderr
    bundle = last_bundle()
    assert bundle is not None
    assert bundle.is_relative_to(tmp_path)

    second = ask()
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert second.stderr.strip() == first_run.ABOUT_NANO


def test_without_the_exporter_it_says_how_to_get_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(GarBundleError, match=r"--model.*gar-edge\[export\]"):
        first_run.export_nano()


def test_a_failing_exporter_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_run, "EXPORTER", "gar_edge.runtime")
    with pytest.raises(GarBundleError, match="exporting gar-nano failed"):
        first_run.export_nano()
