"""gar-nano on the ONNX Runtime that Python 3.10, JetPack 6's, gets: 1.23.2, which refuses opset 24."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.needs import PACKAGE_INDEX
from PIL import Image

from gar_edge.models.nano import exam
from gar_edge.runtime import Gar
from gar_edge.runtime.bundle.shipped import SHIPPED

ROOT = Path(__file__).parents[2]
VERSION = "1.23.2"
SCENES = 3  # of some 14 questions each
SEED = 6100
WARNING = f"ONNX Runtime {VERSION} is too old for the standard decoder, so the compat one answers"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which this Python imports that ONNX Runtime."""
    folder = tmp_path_factory.mktemp("old")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*install, "--target", folder, f"onnxruntime=={VERSION}"], capture_output=True, text=True, check=False
    )
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip(PACKAGE_INDEX)
    assert done.returncode == 0, done.stderr
    return os.environ | {"PYTHONPATH": str(folder)}


def run(environment: dict[str, str], *command: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, *map(str, command)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


def test_the_whole_of_gar_nano_answers_alike(old: dict[str, str], tmp_path: Path) -> None:
    """Every kind of question of the exam, in a process of its own, token for token as the newer one here does."""
    here, asked = [], []
    with Gar.load(SHIPPED, backend="onnxruntime", threads=1) as gar:
        for index in range(SCENES):
            questions = exam.scene(SEED, index)
            scene = gar.open(questions[0].scene.image)
            Image.fromarray(questions[0].scene.image).save(tmp_path / f"{index}.png")
            for number, question in enumerate(questions):
                here.append(scene.ask(question.turn.question, question.masks).tokens)
                files = {}
                for region, mask in question.masks.items():
                    files[str(region)] = f"{index}-{number}-{region}.png"
                    Image.fromarray(mask).save(tmp_path / files[str(region)])
                asked.append({"picture": f"{index}.png", "question": question.turn.question, "masks": files})
    (tmp_path / "questions.json").write_text(json.dumps(asked), encoding="utf-8")

    worker = ROOT / "tests" / "processors" / "answers.py"
    done = run(old, worker, SHIPPED, tmp_path, str(len(asked)), "5", tmp_path)
    assert done.returncode == 0, done.stderr
    assert WARNING in done.stderr
    there = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    assert there["tokens"] == [list(tokens) for tokens in here]
    assert len(here) > 30
    assert np.isfinite(np.load(tmp_path / "features.npy")).all()


def test_a_command_says_why_and_answers(old: dict[str, str], tmp_path: Path) -> None:
    scene, mask = (ROOT / "examples" / name for name in ("scene_1.png", "scene_1_mask_0.png"))
    command = ["-m", "gar_edge.runtime.cli.run", scene, "--mask", mask, "-q", "What colour is <Prompt0>?"]
    done = run(old | {"GAR_EDGE_HOME": str(tmp_path)}, *command, "-m", SHIPPED)
    assert (done.returncode, done.stdout) == (0, "pink\n"), done.stderr
    assert done.stderr.splitlines() == [
        f"warning: {WARNING}, one question at a time; opset 24 takes onnxruntime 1.26 and Python 3.11, or newer ones"
    ]


def test_a_bundle_without_a_compat_decoder_is_refused_in_a_line(old: dict[str, str], tiny_bundle: Path) -> None:
    scene, mask = (ROOT / "examples" / name for name in ("scene_1.png", "scene_1_mask_0.png"))
    done = run(old, "-m", "gar_edge.runtime.cli.run", scene, "--mask", mask, "-m", tiny_bundle)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: ONNX Runtime {VERSION} is too old for {tiny_bundle}: opset 24 takes onnxruntime")
    assert line.endswith("or export the bundle again with --compat (not --int4)")
