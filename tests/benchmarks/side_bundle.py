"""A bundle's side of `against.py`: `side_bundle.py BUNDLE`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from precisions import decode, encode
from rounds import Speed, Work, answer, cores

from gar_edge.runtime.gar import Gar


def load() -> tuple[str, Callable[[Work], Speed]]:
    gar = Gar.load(Path(sys.argv[1]), backend="onnxruntime", threads=cores())

    def work_through(work: Work) -> Speed:
        tiles = encode(gar, work.tiles) if work.tiles else None
        return Speed(*decode(gar, work.tokens, work.steps), tiles)

    return f"ONNX Runtime {version('onnxruntime')}", work_through


if __name__ == "__main__":
    answer(load)
