"""The README's and docs' Python blocks marked runnable, run; and the ten-line example."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gar_edge.runtime.paths import remember_bundle

ROOT = Path(__file__).parents[1]
RUNNABLE = re.compile(r"<!-- runnable -->\n```python\n(.*?)```", re.DOTALL)
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for number, block in enumerate(RUNNABLE.findall(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block: str, tiny_bundle: Path) -> None:
    remember_bundle(tiny_bundle)
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_readme_has_a_runnable_block() -> None:
    assert any(parameter.id == "README.md-0" for parameter in BLOCKS)


def test_the_ten_line_example(tiny_bundle: Path) -> None:
    command = [sys.executable, "examples/describe.py", "examples/table.png", "examples/table_cup.png", str(tiny_bundle)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")
    assert len((ROOT / "examples" / "describe.py").read_text().splitlines()) <= 12
