"""The same answers on every processor? Bundles on emulated ones, against this one's own answers.

    python tests/processors/campaign.py -p Haswell -p Nehalem -m INT8 --questions 500
    make test-arm                                    # Cortex-A57, A72 and A76, with gar-nano in float, int8 and int4

Answers are greedy, features those of the encoder over some tiles of the first picture. Exit code 1 where a float
bundle's token differs, or more than one of 200 answers of an int8 one.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from drawing import draw_questions
from machines import NATIVE, PROCESSORS, Processor, python_on

from gar_edge.runtime.bench.report import machine
from gar_edge.runtime.bundle.bundle import read_manifest

LEAST = {"fp32": 1.0, "int8": 0.995, "int4": 0.0}  # of answers that must be the same
WORKER = Path(__file__).with_name("answers.py")


@dataclass(frozen=True)
class Part:
    """What one processor said about one bundle."""

    tokens: list[list[int]]
    features: np.ndarray
    saturate: bool
    seconds: float


def ask(processor: Processor, bundle: Path, questions: Path, count: int, tiles: int, arm_root: Path) -> Part:
    command, variables = python_on(processor, arm_root)
    with tempfile.TemporaryDirectory() as out:
        arguments = [*command, str(WORKER), str(bundle.resolve()), str(questions), str(count), str(tiles), out]
        done = subprocess.run(arguments, env=os.environ | variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{processor.name}: {done.stderr.strip() or done.returncode}")
        report = json.loads((Path(out) / "answers.json").read_text(encoding="utf-8"))
        features = np.load(Path(out) / "features.npy")
    return Part(report["tokens"], features, report["saturate"], report["answers_s"])


def compared(found: Part, native: Part) -> dict[str, object]:
    """Answers with the same tokens, and the features' distance by relative L2 norm."""
    distance = np.linalg.norm(found.features.astype(np.float64) - native.features) / np.linalg.norm(native.features)
    return {
        "saturates_by_itself": found.saturate,
        "answers": len(native.tokens),
        "same": sum(a == b for a, b in zip(found.tokens, native.tokens, strict=True)),
        "features_relative_l2": float(f"{distance:.3g}"),
        "seconds": round(found.seconds, 1),
    }


def main(
    model: Annotated[list[Path], typer.Option("-m", "--model")],
    processor: Annotated[list[str], typer.Option("-p", "--processor", help=", ".join(PROCESSORS))],
    questions: Annotated[int, typer.Option(min=0, help="Scenes have some 14 each; 0: features alone.")] = 500,
    tiles: Annotated[int, typer.Option(min=1, help="Whose features are compared.")] = 5,
    arm_root: Annotated[Path, typer.Option(help="What arm_root.sh made.")] = Path("build/arm"),
) -> None:
    """Print a JSON object for every bundle and processor."""
    if unknown := [name for name in processor if name not in PROCESSORS]:
        raise SystemExit(f"{', '.join(unknown)}: unknown; choose from {', '.join(PROCESSORS)}")
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        asked = Path(scratch)
        draw_questions(asked, max(1, questions))
        for bundle in model:
            precision = read_manifest(bundle).precision
            native = ask(NATIVE, bundle, asked, questions, tiles, arm_root)
            for name in processor:
                row = compared(ask(PROCESSORS[name], bundle, asked, questions, tiles, arm_root.resolve()), native)
                print(json.dumps({"processor": name, "precision": precision} | row), flush=True)
                failed |= row["same"] < LEAST.get(precision, 0.0) * questions
    print(json.dumps({"native": machine()["processor"], "versions": machine()["versions"]}))
    raise typer.Exit(failed)


if __name__ == "__main__":
    typer.run(main)
