"""What a GPU machine without a network lacks, in pieces that can be carried one by one.

    python tests/gpu/pieces.py pack build/gpu-pieces --python 3.12     # here: gar-edge's own wheel and those it needs
    python pieces.py join build/gpu-pieces build/gpu-site              # there: put together, checked, installed
    PYTHONPATH=build/gpu-site python tests/gpu/check.py

torch, transformers, onnx and CUDA's libraries are expected there, as any machine for such work has them;
more is added with --also. A piece is any file `piece-*`, and pieces.json has their digests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

LIST = "pieces.json"
ROOT = Path(__file__).parents[2]
BLOCK = 1 << 20  # read at once
# With what they need: of the runtime and the exporter, all but what is expected there.
PACKAGES = (
    "tokenizers", "jinja2", "pillow", "opencv-python-headless", "pycocotools", "platformdirs", "msgspec", "typer",
    "rich", "safetensors", "huggingface-hub", "psutil", "scikit-image", "onnx-ir",
)  # fmt: skip
ALONE = ("onnxruntime-gpu",)  # without: CUDA's libraries are there


def pack(folder: Path, python: str, mib: int, also: list[str]) -> None:
    """Build and download the wheels, x86-64 Linux, and write them as pieces."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels = Path(scratch) / "wheels"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(17, 36)] + ["manylinux2014_x86_64"]
        there = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
        for platform in platforms:
            there += ["--platform", platform]
        download = [*pip, "download", "--quiet", "-d", str(wheels), *there]
        subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "-w", str(wheels), str(ROOT)], check=True)
        subprocess.run([*download, *PACKAGES, *also], check=True)
        subprocess.run([*download, "--no-deps", *ALONE], check=True)
        archive = Path(scratch) / "wheels.tar"
        with tarfile.open(archive, "w") as tar:
            for wheel in sorted(wheels.glob("*.whl")):
                tar.add(wheel, wheel.name)
        for name, size in split(archive, folder, mib << 20).items():
            print(f"{folder / name}: {size / 2**20:.1f} MiB")


def join(folder: Path, target: Path) -> None:
    """Put the pieces together and install the wheels, without a network."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "wheels.tar"
        put_together(folder, archive)
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        wheels = sorted(map(str, Path(scratch).glob("*.whl")))
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            str(target),
        ]
        subprocess.run([*install, *wheels], check=True)
    print(f"PYTHONPATH={target}")


def split(archive: Path, folder: Path, size: int) -> dict[str, int]:
    """Write a file as pieces of at most `size` bytes and their list; bytes of each by name."""
    folder.mkdir(parents=True)
    pieces: dict[str, dict[str, int | str]] = {}
    with archive.open("rb") as source:
        while first := source.read(min(BLOCK, size)):
            name, digest, written = f"piece-{len(pieces):02}", hashlib.sha256(), 0
            with (folder / name).open("wb") as piece:
                while first:
                    piece.write(first)
                    digest.update(first)
                    written += len(first)
                    first = source.read(min(BLOCK, size - written))
            pieces[name] = {"bytes": written, "sha256": digest.hexdigest()}
    (folder / LIST).write_text(json.dumps(pieces, indent=1) + "\n", encoding="utf-8")
    return {name: int(piece["bytes"]) for name, piece in pieces.items()}


def put_together(folder: Path, archive: Path) -> None:
    """The file that was split; `SystemExit` names the piece that is missing or is not what it was."""
    pieces = json.loads((folder / LIST).read_text(encoding="utf-8"))
    with archive.open("wb") as out:
        for name, expected in pieces.items():
            piece = folder / name
            if not piece.is_file():
                raise SystemExit(f"{piece}: missing; {len(pieces)} pieces are wanted")
            content = piece.read_bytes()
            if hashlib.sha256(content).hexdigest() != expected["sha256"]:
                raise SystemExit(f"{piece}: not what was packed ({len(content)} of {expected['bytes']} bytes)")
            out.write(content)


def main() -> None:
    """By argparse: what `join` installs is not there before."""
    parser = argparse.ArgumentParser(description="Carry packages to a machine without a network, in pieces.")
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help=pack.__doc__)
    packing.add_argument("folder", type=Path, help="new folder for the pieces")
    packing.add_argument("--python", default="3.12", help="version of the Python there (default %(default)s)")
    packing.add_argument("--mib", type=int, default=60, help="most of one piece, in MiB (default %(default)s)")
    packing.add_argument("--also", action="append", default=[], help="a package more, with what it needs")
    joining = commands.add_parser("join", help=join.__doc__)
    joining.add_argument("folder", type=Path, help="where all pieces are, and pieces.json")
    joining.add_argument("target", type=Path, help="new folder for the packages, to be named in PYTHONPATH")
    chosen = parser.parse_args()
    if chosen.command == "pack":
        pack(chosen.folder, chosen.python, chosen.mib, chosen.also)
    else:
        join(chosen.folder, chosen.target)


if __name__ == "__main__":
    main()
