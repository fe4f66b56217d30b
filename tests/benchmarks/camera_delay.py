"""What answering costs the loop that reads a camera: `python tests/benchmarks/camera_delay.py -m BUNDLE --seconds 30`.

Frames come at a fixed pace; each is offered to a thread that answers about the newest. Measured: the loop's own work on
a frame, how late it begins with it, and how old answers are.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from gar_edge.runtime import Answer, Frame, Gar, GarError, LiveAnswers, Options


def main(
    model: Annotated[Path, typer.Option("-m", "--model")],
    seconds: Annotated[float, typer.Option(min=1.0)] = 30.0,
    rate: Annotated[float, typer.Option(min=0.1)] = 30.0,
    threads: Annotated[int, typer.Option(min=0, help="For answering; the loop wants a core of its own.")] = 1,
) -> None:
    """Print one JSON object: milliseconds, and counts of frames."""
    answers: list[float] = []

    def answered(frame: Frame, outcome: Answer | GarError) -> None:
        if isinstance(outcome, GarError):
            raise outcome
        answers.append(time.monotonic() - frame.tag)

    random, work, late = np.random.default_rng(0), [], []
    with (
        Gar.load(model, threads=threads) as gar,
        LiveAnswers(gar, answered, options=Options(max_new_tokens=32, live=True)) as live,
    ):
        picture = random.integers(0, 256, (240, 320, 3), np.uint8)
        region = gar.manifest.prompt.default_region
        begin, count = time.monotonic(), 0
        while count < seconds * rate:
            due = begin + count / rate
            time.sleep(max(0.0, due - time.monotonic()))
            started = time.monotonic()
            late.append(started - due)
            frame, mask = np.roll(picture, count, axis=1), np.zeros(picture.shape[:2], np.bool_)
            mask[80:160, 100:200] = True
            live.offer(Frame(frame, {region: mask}, tag=started))
            work.append(time.monotonic() - started)
            count += 1
        dropped = live.dropped
    found = {"frames": count, "answered": len(answers), "dropped": dropped}
    for name, times in {"work_ms": work, "late_ms": late, "answer_age_ms": answers}.items():
        found[name] = {
            "median": round(statistics.median(times) * 1e3, 2),
            "p99": round(float(np.quantile(times, 0.99)) * 1e3, 2),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
