"""What a second region costs in a scene that is open: only tiles whose mask changed are encoded again.

    python tests/benchmarks/second_region.py -m BUNDLE --tiles 16

The first region lies within one tile, the second within two others: of 17 tiles 4 are encoded, with the thumbnail and
the tile that the first one left.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from gar_edge.runtime import Gar, Options
from gar_edge.runtime.bench.report import machine


def square(side: int, tile: int, row: float, column: float) -> NDArray[np.bool_]:
    """A mask [side,side]: half a tile wide, its middle at so many tiles from the top left."""
    mask = np.zeros((side, side), np.bool_)
    top, left = (round((at - 0.25) * tile) for at in (row, column))
    mask[top : top + tile // 2, left : left + tile // 2] = True
    return mask


def main(
    model: Annotated[Path, typer.Option("-m", "--model")],
    tiles: Annotated[int, typer.Option(min=9, help="A square number.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="After one to warm up.")] = 3,
) -> None:
    """Print one JSON object: medians of milliseconds in the encoder, and the second's over the first's."""
    gar = Gar.load(model, backend="onnxruntime")
    tile, across = gar.manifest.preprocess.tile, round(tiles**0.5)
    masks = square(across * tile, tile, 0.5, 0.5), square(across * tile, tile, 2.5, 2.0)
    times: list[list[float]] = []
    encoded: list[int] = []
    for number in range(rounds + 1):
        noise = np.random.default_rng(number).integers(0, 256, (across * tile, across * tile, 3), np.uint8)
        scene = gar.open(noise, max_tiles=tiles)
        answers = [scene.describe(mask, options=Options(max_new_tokens=1)) for mask in masks]
        times.append([answer.timings_ms.encode for answer in answers])
        encoded = [answer.reuse.tiles_encoded for answer in answers]
    first, second = (statistics.median(column) for column in zip(*times[1:], strict=True))
    print(
        json.dumps(
            {
                "model": gar.manifest.name,
                "tiles": encoded,
                "encode_ms": [round(first, 1), round(second, 1)],
                "ratio": round(statistics.median(after / before for before, after in times[1:]), 3),
                "rounds": rounds,
                "machine": machine(),
            }
        )
    )


if __name__ == "__main__":
    typer.run(main)
