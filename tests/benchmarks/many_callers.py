"""What one engine gives to many callers: answers a second, decode, and the longest gap in an answer.

    python tests/benchmarks/many_callers.py threads -m NANO --old OLD_PYTHON --old-model OLD_NANO
    python tests/benchmarks/many_callers.py pictures -m INT8_1B
    python tests/benchmarks/many_callers.py gap -m INT8_1B

threads: eight threads, each asking about pictures of its own, here and in another build of gar-edge (the Python of its
environment; the same work in both, in turn). pictures: eight requests about eight pictures, one by one and together.
gap: the longest time between two tokens of an answer while another prompt of 1,800 tokens is prefilled, beside what one
chunk and one step took in the same run. Everything that is measured uses what both builds have.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from gar_edge.runtime import Gar, Options

app = typer.Typer(add_completion=False)
CALLERS = 8


@dataclass
class Runs:
    """Runs of the decoder: (positions, sequences, seconds, when it ended), as they come."""

    all: list[tuple[int, int, float, float]] = field(default_factory=list)

    def watch(self, gar: Gar) -> None:
        session = (gar.pipeline if hasattr(gar, "pipeline") else gar).decoder.session
        bind = session.bind

        def bound(inputs: Any, outputs: Any) -> Callable[[], None]:
            run, (count, length) = bind(inputs, outputs), inputs["inputs_embeds"].shape[:2]

            def timed() -> None:
                begin = time.perf_counter()
                run()
                end = time.perf_counter()
                self.all.append((length, count, end - begin, end))

            return timed

        session.bind = bound

    def decode_rate(self) -> float:
        """Tokens a second of all steps."""
        steps = [(count, seconds) for length, count, seconds, _ in self.all if length == 1]
        return sum(count for count, _ in steps) / sum(seconds for _, seconds in steps)


def noise(seed: int, side: int, across: int = 1) -> NDArray[np.uint8]:
    """A picture of so many tiles beside one another."""
    return np.random.default_rng(seed).integers(0, 256, (side, across * side, 3), np.uint8)


def middle(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    mask = np.zeros(picture.shape[:2], np.bool_)
    height, width = mask.shape
    mask[height // 4 : height // 2, width // 3 : width // 2] = True
    return mask


def together(work: list[Callable[[], Any]]) -> float:
    """Seconds that functions take in threads of their own."""
    threads = [threading.Thread(target=one) for one in work]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


@app.command(hidden=True)
def child(model: Path, pictures: int, callers: int, tokens: int) -> None:
    """Answers a second of so many callers; one JSON line. Runs in either build."""
    gar = Gar.load(model, backend="onnxruntime")
    side, options = gar.manifest.preprocess.tile, Options(max_new_tokens=tokens)

    def ask(caller: int, count: int) -> None:
        for number in range(count):
            picture = noise(1000 * caller + number, side, 2)
            gar.open(picture).describe(middle(picture), options=options)

    together([lambda: ask(99, 2)])  # to warm up
    seconds = together([lambda caller=caller: ask(caller, pictures) for caller in range(callers)])
    print(json.dumps({"answers_per_s": callers * pictures / seconds}))


@app.command()
def threads(
    model: Annotated[Path, typer.Option("-m", "--model")],
    old: Annotated[Path, typer.Option(help="Python of the other build.")],
    old_model: Annotated[Path, typer.Option(help="A bundle that it reads.")],
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    pictures: Annotated[int, typer.Option(help="Of each caller.")] = 12,
    tokens: Annotated[int, typer.Option(help="Of each answer.")] = 20,
) -> None:
    """Print answers a second of one and of eight callers in both builds, and the ratios of each round."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for build, python, bundle in (("old", old, old_model), ("new", Path(sys.executable), model)):
            for callers in (1, CALLERS):
                command = [python, __file__, "child", bundle, pictures, callers, tokens]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
                found.setdefault(f"{build}, {callers}", []).append(json.loads(done.stdout)["answers_per_s"])
    ratios = [new / old for new, old in zip(found[f"new, {CALLERS}"], found[f"old, {CALLERS}"], strict=True)]
    print(
        json.dumps(
            {
                "answers_per_s": {name: round(statistics.median(values), 2) for name, values in found.items()},
                "new_over_old": round(statistics.median(ratios), 2),
                "each": [round(ratio, 2) for ratio in ratios],
            }
        )
    )


@app.command()
def pictures(
    model: Annotated[Path, typer.Option("-m", "--model")],
    tokens: Annotated[int, typer.Option(help="Of each answer.")] = 128,
    rounds: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Print requests and decoded tokens a second, one by one and together, of pictures of one tile."""
    ratios: list[dict[str, float]] = []
    for number in range(rounds):
        gar, runs = Gar.load(model, backend="onnxruntime"), Runs()
        runs.watch(gar)
        side, options = gar.manifest.preprocess.tile, Options(max_new_tokens=tokens)
        made = [noise(100 * number + index, side) for index in range(2 * CALLERS)]

        def ask(picture: NDArray[np.uint8], gar: Gar = gar, options: Options = options) -> None:
            gar.open(picture, max_tiles=1).describe(middle(picture), options=options)

        alone = together([lambda: [ask(picture) for picture in made[:CALLERS]]])  # noqa: B023
        rate = runs.decode_rate()
        runs.all.clear()
        beside = together([lambda picture=picture: ask(picture) for picture in made[CALLERS:]])
        ratios.append(
            {
                "one_by_one_s": round(alone, 1), "together_s": round(beside, 1), "faster": round(alone / beside, 2),
                "decode_alone": round(rate, 1), "decode_together": round(runs.decode_rate(), 1),
                "decode_faster": round(runs.decode_rate() / rate, 2),
            }
        )  # fmt: skip
    print(json.dumps(ratios))


@app.command()
def gap(
    model: Annotated[Path, typer.Option("-m", "--model")],
    prompt: Annotated[int, typer.Option(help="Tokens of the other prompt, about.")] = 1800,
) -> None:
    """Print the longest gap between tokens of an answer, and the longest chunk and step of the same run."""
    gar, runs = Gar.load(model, backend="onnxruntime"), Runs()
    runs.watch(gar)
    side, dims = gar.manifest.preprocess.tile, gar.manifest.dimensions
    tiles = max(1, prompt // dims.tile_tokens - 2)
    other = noise(1, side, tiles)
    scene = gar.open(other, max_tiles=tiles)
    scene.describe(middle(other), options=Options(max_new_tokens=1))  # its tiles are encoded from here on
    picture = noise(2, side)
    stream = gar.open(picture, max_tiles=1).stream(None, {1: middle(picture)}, options=Options(max_new_tokens=200))
    next(iter(stream))
    runs.all.clear()
    name = gar.manifest.prompt.regions[2]
    asked = scene.ask(f"What is {name}?", {2: middle(other)}, options=Options(max_new_tokens=1))
    stream.close()
    stream.finish()
    steps = [(seconds, end) for length, _, seconds, end in runs.all if length == 1]
    ends = [end for _, end in steps]
    chunk = max(seconds for length, _, seconds, _ in runs.all if length > 1)
    print(
        json.dumps(
            {
                "prefilled": asked.reuse.tokens_prefilled,
                "longest_gap_s": round(max(b - a for a, b in pairwise(ends)), 3),
                "longest_chunk_s": round(chunk, 3),
                "longest_step_s": round(max(seconds for seconds, _ in steps), 3),
                "steps_meanwhile": len(steps),
            }
        )
    )


if __name__ == "__main__":
    app()
