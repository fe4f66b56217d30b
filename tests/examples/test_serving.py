"""The examples of clients, run against a server: C++, Python, and the page's ways around them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed; pip install 'gar-edge[serve]'")

from helpers.needs import HOST_COMPILER
from helpers.serving import EXAMPLES, Running, serving

from gar_edge.runtime import Box, Gar, Options
from gar_edge.runtime.bundle.shipped import SHIPPED

SERVING = EXAMPLES / "serving"
PICTURE, BOX = EXAMPLES / "scene_1.png", (5, 5, 60, 60)
QUESTION = 'What "colour" is <Prompt0>?'  # quotation marks, as JSON must have them
KEY = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with serving(keys={"planner": KEY}) as running:
        yield running


@pytest.fixture(scope="module")
def right() -> str:
    with Gar.load(SHIPPED, threads=1) as gar:
        return gar.open(PICTURE).ask(QUESTION, {0: Box(*BOX)}, options=Options(logprobs=0)).text


def run(command: list[str], key: str = KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"GAR_KEY": key, "PATH": ""})


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip(HOST_COMPILER)
    program = tmp_path_factory.mktemp("cpp") / "ask"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-o", str(program)]
    subprocess.run([compiler, *flags, str(SERVING / "ask.cpp")], check=True)
    return program


def test_a_planner_in_cpp(compiled: Path, locked: Running, right: str) -> None:
    host, port = locked.address
    command = [str(compiled), host, str(port), str(PICTURE), *map(str, BOX), QUESTION]
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers"][0]["text"] == right
    refused = run(command, "wrong")
    assert refused.returncode == 1
    assert "401" in refused.stderr


def test_a_client_of_the_standard_library(locked: Running, right: str) -> None:
    corners = ",".join(map(str, BOX))
    done = run([sys.executable, str(SERVING / "ask.py"), locked.url, str(PICTURE), corners, QUESTION])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(right)
