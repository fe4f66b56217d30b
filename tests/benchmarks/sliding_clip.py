"""A clip of eight frames that slides by one: milliseconds until its features are there, against opening it anew.

`python tests/benchmarks/sliding_clip.py -m BUNDLE`: the median of rounds, fresh and slid in turn. Counted are cutting,
the encoder and the replay, as an answer's own `timings_ms` has them, and what opening or sliding took.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from gar_edge.runtime import Answer, Gar, Options
from gar_edge.runtime.bundle.shipped import usual_bundle

WIDTH, HEIGHT = 640, 480


def frame(step: int) -> np.ndarray:
    """RGB noise with a square that moves."""
    picture = np.random.default_rng(step).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    picture[mask(step)] = (220, 0, 0)
    return picture


def mask(step: int) -> np.ndarray:
    """Where the square is."""
    marked = np.zeros((HEIGHT, WIDTH), bool)
    marked[100:260, 20 + 4 * (step % 100) : 180 + 4 * (step % 100)] = True
    return marked


def to_features(answer: Answer) -> float:
    """Milliseconds before the prompt is prefilled."""
    return answer.timings_ms.preprocess + answer.timings_ms.encode + answer.timings_ms.replay


def main(
    model: Annotated[Path | None, typer.Option("-m", "--model")] = None,
    frames: Annotated[int, typer.Option(min=2)] = 8,
    rounds: Annotated[int, typer.Option(min=1)] = 20,
    threads: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Time sliding against opening anew."""
    gar = Gar.load(model or usual_bundle(), threads=threads)
    question, options = "What colour is <Prompt0>?", Options(max_new_tokens=1)
    images, masks = [frame(step) for step in range(frames + rounds)], [mask(step) for step in range(frames + rounds)]
    clip = gar.open_clip(images[:frames])
    clip.ask(question, {0: masks[:frames]}, options=options)
    fresh, slid = [], []
    for step in range(1, rounds + 1):
        window = slice(step, step + frames)
        clip = clip.slide([images[step + frames - 1]])
        answer = clip.ask(question, {0: masks[window]}, options=options)
        assert answer.reuse.tiles_encoded == 1
        slid.append(to_features(answer))
        again = gar.open_clip(images[window]).ask(question, {0: masks[window]}, options=options)
        assert again.reuse.tiles_encoded == frames
        assert again.tokens == answer.tokens
        fresh.append(to_features(again))
    before, after = statistics.median(fresh), statistics.median(slid)
    sys.stdout.write(f"{gar.manifest.name}, {frames} frames of {WIDTH}x{HEIGHT}: ")
    sys.stdout.write(f"fresh {before:.1f} ms, slid by one {after:.1f} ms, {before / after:.1f} times as fast\n")


if __name__ == "__main__":
    typer.run(main)
