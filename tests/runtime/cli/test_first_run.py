"""The first command on a fresh machine: nothing was exported, and nothing can be."""

import subprocess
import sys
from pathlib import Path

import pytest

from gar_edge.runtime.cli.first_run import ABOUT_NANO
from gar_edge.runtime.files.paths import HOME, last_bundle

EXAMPLES = Path(__file__).parents[3] / "examples"
ABSENT = "import sys\nfor name in ('torch', 'onnx', 'gar_edge.export', 'gar_edge.models'): sys.modules[name] = None\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Python that has the runtime alone."""
    return subprocess.run(
        [sys.executable, "-c", ABSENT + code], cwd=EXAMPLES, capture_output=True, text=True, check=False
    )


def test_gar_run_answers_and_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME, str(tmp_path))
    arguments = ["scene_1.png", "--mask", "scene_1_mask_0.png", "-q", "What colour is <Prompt0>?"]
    done = run(f"sys.argv[1:] = {arguments}\nfrom gar_edge.runtime.cli.run import main\nmain()")
    assert (done.returncode, done.stdout.strip()) == (0, "pink"), done.stderr
    assert done.stderr.strip() == ABOUT_NANO
    assert last_bundle() is None


def test_load_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME, str(tmp_path))
    done = run(
        "from gar_edge.runtime import Gar\n"
        "scene = Gar.load().open('scene_1.png')\n"
        "print(scene.ask('What colour is <Prompt0>?', {0: 'scene_1_mask_0.png'}).text)"
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "pink", "")


def test_gar_bench_times_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME, str(tmp_path))
    arguments = ["--tiles", "1", "--rounds", "1", "--new-tokens", "2", "--json"]
    done = run(f"sys.argv[1:] = {arguments}\nfrom gar_edge.runtime.cli.bench import main\nmain()")
    assert (done.returncode, '"gar-nano-fp32"' in done.stdout) == (0, True), done.stderr
