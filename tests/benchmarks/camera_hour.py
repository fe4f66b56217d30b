"""A camera for an hour: `python tests/benchmarks/camera_hour.py --minutes 60`.

gar-nano's moving scenes come at 15 frames a second and are offered to `LiveAnswers`, each with a question about its
moving thing. Measured: resident memory (the median of the second tenth of the time against that of the last), frames
dropped, answers that were late (a newer frame waited already, or a frame's time had passed since its own came), the
longest row of them, and answers that were wrong. `unsaid`: answers that came late twice in a row by the benchmark's own
clock, and that no count told.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.moving_scenes import QUESTION, MovingScene

from gar_edge.runtime import Answer, Frame, Gar, GarError, LiveAnswers, Options
from gar_edge.runtime.bundle.shipped import SHIPPED

SCENE_FRAMES = 450  # half a minute of each scene
SCENES = 24
EVERY = 15.0  # seconds between looks at memory


def main(
    model: Annotated[Path, typer.Option("-m", "--model")] = SHIPPED,
    minutes: Annotated[float, typer.Option(min=0.1)] = 60.0,
    rate: Annotated[float, typer.Option(min=1.0)] = 15.0,
    threads: Annotated[int, typer.Option(min=0)] = 1,
) -> None:
    """Print one JSON object."""
    scenes = [MovingScene(seed) for seed in range(SCENES)]
    process = psutil.Process()
    found = {"answered": 0, "wrong": 0, "late": 0, "longest_row": 0, "unsaid": 0}
    ages: list[float] = []
    row = 0  # of late answers, as counted here

    def answered(frame: Frame, outcome: Answer | GarError) -> None:
        nonlocal row
        if isinstance(outcome, GarError):
            raise outcome
        colour, offered = frame.tag
        age = time.monotonic() - offered
        row = row + 1 if age > 1 / rate else 0
        found["answered"] += 1
        found["wrong"] += outcome.text != colour
        found["late"] += live.late_in_a_row > 0
        found["longest_row"] = max(found["longest_row"], live.late_in_a_row)
        found["unsaid"] += row >= 2 and not live.late_in_a_row
        if found["answered"] % 30 == 0 and len(ages) < 4096:
            ages.append(age)

    memory: list[int] = []
    begin, count, looked = time.monotonic(), 0, 0.0
    with (
        Gar.load(model, threads=threads) as gar,
        LiveAnswers(gar, answered, options=Options(max_new_tokens=8, live=True), late_after=1 / rate) as live,
    ):
        while count < minutes * 60 * rate:
            due = begin + count / rate
            time.sleep(max(0.0, due - time.monotonic()))
            scene = scenes[count // SCENE_FRAMES % SCENES]
            view = scene.view(count)
            live.offer(Frame(view.image, {0: view.mask}, QUESTION, tag=(scene.colour, time.monotonic())))
            count += 1
            if due - begin >= looked:
                memory.append(process.memory_info().rss)
                looked += EVERY
        live.finish()
        dropped = live.dropped
    tenth = max(1, len(memory) // 10)
    before, after = (statistics.median(part) for part in (memory[tenth : 2 * tenth] or memory, memory[-tenth:]))
    sys.stdout.write(
        json.dumps(
            {
                "frames": count, **found, "dropped": dropped,
                "age_ms": {"median": round(statistics.median(ages) * 1e3, 1), "most": round(max(ages) * 1e3, 1)},
                "rss_mb": [round(before / 1e6, 1), round(after / 1e6, 1)],
                "growth": round(after / before - 1, 5),
            }
        )
        + "\n"
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
