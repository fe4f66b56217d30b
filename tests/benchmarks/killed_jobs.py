"""Jobs killed (SIGKILL) at random moments and started again until all are answered: each exactly once?

python tests/benchmarks/killed_jobs.py --jobs 500 --kills 25 --model nano-bundle
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from box_prompts import around
from numpy.typing import NDArray
from PIL import Image

from gar_edge.models.nano import exam


def corners(mask: NDArray[np.bool_]) -> list[float]:
    box = around(mask)
    return [box.x1, box.y1, box.x2, box.y2]


def write_jobs(folder: Path, count: int, seed: int) -> Path:
    """That many questions about gar-nano's scenes, with the scenes' pictures and their regions as boxes."""
    jobs: list[dict[str, object]] = []
    scene = 0
    while len(jobs) < count:
        questions = exam.scene(seed, scene)
        Image.fromarray(questions[0].scene.image).save(folder / f"{scene}.png")
        for question in questions:
            regions = {number: {"box": corners(mask)} for number, mask in question.masks.items()}
            jobs.append({"image": f"{scene}.png", "question": question.turn.question, "regions": regions})
        scene += 1
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs[:count]))
    return path


def main(
    model: Annotated[Path, typer.Option(exists=True, file_okay=False, help="A bundle.")],
    jobs: Annotated[int, typer.Option(min=1, help="Number of jobs.")] = 500,
    kills: Annotated[int, typer.Option(min=0, help="How often the run is killed.")] = 25,
    seed: Annotated[int, typer.Option(help="Of the scenes and of the moments.")] = 1,
) -> None:
    """Kill, start again, count."""
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = folder / "out.jsonl"
        command = [
            sys.executable,
            "-m",
            "gar_edge.runtime.cli.run",
            "--jobs",
            str(write_jobs(folder, jobs, seed)),
            "--jsonl",
        ]
        command += [str(out), "-m", str(model), "--max-new-tokens", "64"]
        killed = 0
        for turn in range(kills):
            enough = jobs * (turn + 1) // (kills + 1)  # spreads the kills over the run
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and _lines(out) < enough:
                    time.sleep(0.001)
                time.sleep(moments.uniform(0, 0.1))
                process.send_signal(signal.SIGKILL)
                killed += process.wait() == -signal.SIGKILL
        subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
        found = [json.loads(line)["index"] for line in out.read_text(encoding="utf-8").splitlines()]
    once = sorted(found) == list(range(jobs))
    typer.echo(
        f"{jobs} jobs, killed {killed} times: {'each answered exactly once' if once else 'NOT each exactly once'}"
    )
    raise typer.Exit(0 if once else 1)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    typer.run(main)
