"""Bundles of one model against each other on this machine: `python -m gar_edge.calibration.benchmark FP32 INT8 INT4`.

Rounds are interleaved, so that a busy machine slows all alike; medians, and ratios to the first bundle.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from gar_edge.runtime import Gar
from gar_edge.runtime.decode import PREFILL_CHUNK
from gar_edge.runtime.sequence import TokenSequence
from gar_edge.runtime.terminal import run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
RATES = {"encode": "tiles/s", "prefill": "tokens/s", "decode": "tokens/s"}


@dataclass
class Contestant:
    """One loaded bundle with inputs of its own."""

    name: str
    gar: Gar
    tiles: int
    sequence: TokenSequence

    @classmethod
    def load(cls, folder: Path, tiles: int, steps: int, threads: int) -> Contestant:
        """Load a bundle; `steps` tokens will be decoded behind each prefill."""
        gar = Gar.load(folder, threads=threads)
        return cls(gar.manifest.name, gar, tiles, gar.decoder.start(PREFILL_CHUNK + steps))

    def encode(self) -> float:
        """Tiles a second."""
        side = self.gar.manifest.preprocess.tile
        pixels = np.random.default_rng(0).integers(0, 256, (self.tiles, 3, side, side), np.uint8)
        mask = np.zeros((self.tiles, side, side), np.bool_)
        mask[:, side // 4 : side // 2, side // 4 : side // 2] = True
        return self.tiles / _seconds(lambda: self.gar.vision.encode(pixels, mask))

    def prefill(self) -> float:
        """Tokens a second, one chunk into an empty cache."""
        ids = np.arange(PREFILL_CHUNK) % self.gar.manifest.dimensions.vocab
        rows = self.gar.bundle.embed(ids)
        embeds = self.gar.backend.empty(rows.shape, self.gar.decoder.dtype)
        embeds.write(rows.astype(self.gar.decoder.dtype))
        self.sequence.rewind(0)
        return PREFILL_CHUNK / _seconds(lambda: self.sequence.prefill(embeds))

    def decode(self) -> float:
        """Tokens a second behind the prefilled chunk."""
        steps = self.sequence.capacity - PREFILL_CHUNK
        self.sequence.rewind(PREFILL_CHUNK)
        rows = self.gar.bundle.embed(np.arange(steps))[:, None]

        def all_steps() -> None:
            for row in rows:
                self.sequence.step(row)

        return steps / _seconds(all_steps)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


@app.command()
def benchmark(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles of one model; ratios are to the first.")],
    tiles: Annotated[int, typer.Option(min=1, help="Tiles encoded in a round.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Tokens decoded in a round.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after one to warm up.")] = 3,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads; 0: all cores.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time encoder, prefill (one chunk) and decode of several bundles, round about."""
    contestants = [Contestant.load(folder, tiles, steps, threads) for folder in bundles]
    rates: dict[str, dict[str, list[float]]] = {c.name: {stage: [] for stage in RATES} for c in contestants}
    for number in range(rounds + 1):
        for contestant in contestants:
            for stage in RATES:
                rate = getattr(contestant, stage)()
                if number:
                    rates[contestant.name][stage].append(rate)
    medians = {name: {stage: statistics.median(r) for stage, r in stages.items()} for name, stages in rates.items()}
    if as_json:
        print(json.dumps({"machine": platform.processor() or platform.machine(), "rates": medians}))
        return
    Console().print(_table(medians))


def _table(medians: dict[str, dict[str, float]]) -> Table:
    table = Table("bundle", *(f"{stage}, {unit}" for stage, unit in RATES.items()))
    first: dict[str, Any] = next(iter(medians.values()))
    for name, stages in medians.items():
        table.add_row(name, *(f"{rate:.3g} ({rate / first[stage]:.2f}x)" for stage, rate in stages.items()))
    return table


if __name__ == "__main__":
    run_app(app)
