"""Bundles of one model against one another: `python tests/benchmarks/precisions.py -m FP32 -m INT8 -m INT4`.

Encoder, prefill and decode alone, on noise, in turn; ratios are to the first bundle.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from gar_edge.runtime.bench.report import machine
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.model.start import start_sequence


def encode(gar: Gar, tiles: int) -> float:
    """Tiles a second."""
    side = gar.manifest.preprocess.tile
    pixels = np.random.default_rng(0).integers(0, 256, (tiles, 3, side, side), np.uint8)
    mask = np.zeros((tiles, side, side), np.bool_)
    begin = time.perf_counter()
    gar.pipeline.vision.encode(pixels, mask).read()
    return tiles / (time.perf_counter() - begin)


def decode(gar: Gar, tokens: int, steps: int) -> tuple[float, float]:
    """Tokens a second of a prompt, and of what follows it one by one."""
    decoder = gar.pipeline.decoder
    noise = np.random.default_rng(0).standard_normal((tokens, decoder.dims.hidden)) * 0.02
    embeds = gar.pipeline.backend.empty(noise.shape, decoder.dtype)
    embeds.write(noise.astype(decoder.dtype))
    sequence = start_sequence(decoder, tokens + steps)
    begin = time.perf_counter()
    token = sequence.prefill(embeds).tokens()
    prefilled = time.perf_counter()
    for _ in range(steps):
        token = sequence.step(gar.pipeline.bundle.embed(token)).tokens()
    return tokens / (prefilled - begin), steps / (time.perf_counter() - prefilled)


def main(
    model: Annotated[list[Path], typer.Option("-m", "--model")],
    tiles: Annotated[int, typer.Option(min=1)] = 2,
    tokens: Annotated[int, typer.Option(min=1)] = 512,
    new_tokens: Annotated[int, typer.Option(min=1)] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="After one to warm up.")] = 3,
) -> None:
    """Print one JSON object: by bundle and stage, tiles or tokens a second and the ratio to the first's."""
    models = [Gar.load(folder) for folder in model]
    found: list[dict[str, list[float]]] = [{"encode": [], "prefill": [], "decode": []} for _ in models]
    for number in range(rounds + 1):
        for gar, times in zip(models, found, strict=True):
            made = (encode(gar, tiles), *decode(gar, tokens, new_tokens))
            if number:
                for stage, value in zip(times, made, strict=True):
                    times[stage].append(value)
    medians = [{stage: statistics.median(values) for stage, values in times.items()} for times in found]
    report = {
        "tiles": tiles, "prompt_tokens": tokens, "new_tokens": new_tokens, "rounds": rounds,
        "bundles": [
            {"name": gar.manifest.name}
            | {stage: [round(rate, 3), round(rate / medians[0][stage], 3)] for stage, rate in one.items()}
            for gar, one in zip(models, medians, strict=True)
        ],
        "machine": machine(),
    }  # fmt: skip
    print(json.dumps(report))


if __name__ == "__main__":
    typer.run(main)
