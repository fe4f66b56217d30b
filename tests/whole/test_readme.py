"""The README's and docs' blocks marked runnable, run as a user would; and the ten-line example."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers.needs import RAY

from gar_edge.runtime.files.paths import remember_bundle

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = re.compile(r"<!-- runnable -->\n```(\w+)\n(.*?)```", re.DOTALL)
BLOCKS = [
    pytest.param(language, block, id=f"{path.name}-{number}-{language}")
    for path in PAGES
    for number, (language, block) in enumerate(MARKED.findall(path.read_text(encoding="utf-8")))
]
SCRIPTS = sysconfig.get_path("scripts")  # where gar-run and the others are


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What blocks may use of the repository, where they may write."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def command(language: str, block: str) -> list[str]:
    """How a block is run."""
    if language == "python":
        return [sys.executable, "-c", block]
    return ["bash", "-euo", "pipefail", "-c", block]


@pytest.mark.parametrize(("language", "block"), BLOCKS)
def test_block_runs(language: str, block: str, tiny_bundle: Path, clone: Path) -> None:
    if "gar-label" in block:
        pytest.importorskip("ray", reason=RAY)
    remember_bundle(tiny_bundle)
    path = os.pathsep.join([SCRIPTS, os.environ.get("PATH", "")])
    done = subprocess.run(
        command(language, block),
        cwd=clone,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "error: " not in done.stderr  # nor in a command whose end decides nothing


def test_a_marked_block_is_one_that_can_be_run() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        assert text.count("<!-- runnable -->") == len(MARKED.findall(text)), path.name
    assert {parameter.values[0] for parameter in BLOCKS} == {"python", "sh"}


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


def test_the_ten_line_example(tiny_bundle: Path) -> None:
    line = [sys.executable, "examples/describe.py", "examples/table.png", "examples/table_cup.png", str(tiny_bundle)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")
    assert len((ROOT / "examples" / "describe.py").read_text().splitlines()) <= 12
