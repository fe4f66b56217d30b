"""The runtime on its own: a clean environment with nothing but `.[cpu]` answers questions."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from helpers.needs import PACKAGE_INDEX
from PIL import Image

ROOT = Path(__file__).parents[2]
FOREIGN = ("torch", "transformers", "onnx", "onnxscript", "onnx_ir", "optimum")


def test_importing_the_runtime_imports_no_foreign_package() -> None:
    code = (
        "import pkgutil, importlib, sys, gar_edge.runtime as r\n"
        "for m in pkgutil.walk_packages(r.__path__, 'gar_edge.runtime.'): importlib.import_module(m.name)\n"
        f"found = set({FOREIGN!r}) & set(sys.modules)\n"
        "siblings = {n for n in sys.modules if n.startswith('gar_edge.') and not n.startswith('gar_edge.runtime')}\n"
        "assert not found and not siblings, (found, siblings)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with `.[cpu]` installed."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{ROOT}[cpu]"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip(PACKAGE_INDEX)
    assert done.returncode == 0, done.stderr
    return python


def test_only_the_runtime_is_needed_to_answer(clean_python: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "photo.png")
    mask = Image.new("L", (60, 40), 0)
    mask.paste(255, (10, 10, 30, 30))
    mask.save(tmp_path / "mask.png")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    check = f"import importlib.util as u; assert not [m for m in {FOREIGN!r} if u.find_spec(m)]"
    subprocess.run([clean_python, "-c", check], check=True, cwd=tmp_path, env=environment)
    code = (
        "from gar_edge.runtime import Gar, Options\n"
        f"scene = Gar.load({str(tiny_bundle)!r}).open('photo.png')\n"
        "answer = scene.describe('mask.png', options=Options(max_new_tokens=3))\n"
        "assert len(answer.tokens) == 3\n"
    )
    subprocess.run([clean_python, "-c", code], check=True, cwd=tmp_path, env=environment)
    command = clean_python.parent / "gar-run"
    arguments = ["photo.png", "--mask", "mask.png", "-m", str(tiny_bundle), "--max-new-tokens", "1", "--json"]
    subprocess.run([command, *arguments], check=True, cwd=tmp_path, env=environment)


def test_the_first_command_answers_by_the_bundle_in_the_package(clean_python: Path, tmp_path: Path) -> None:
    scene, mask = (ROOT / "examples" / name for name in ("scene_1.png", "scene_1_mask_0.png"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["GAR_EDGE_HOME"] = str(tmp_path / "home")
    command = [clean_python.parent / "gar-run", scene, "--mask", mask, "-q", "What colour is <Prompt0>?"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "pink"), done.stderr

    def with_options(*options: str) -> subprocess.CompletedProcess[str]:
        line = [*command, *options]
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert with_options("--choices", "red,pink").stdout == "pink\n"
    held = with_options("--regex", "[a-z]+")
    assert (held.returncode, held.stdout) == (1, "")
    assert "pip install 'gar-edge[structured]'" in held.stderr
    assert "Traceback" not in held.stderr
