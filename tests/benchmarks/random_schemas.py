"""Answers of gar-nano to random JSON Schemas: each that is finished parses and is valid; then what became of them.

python tests/benchmarks/random_schemas.py -m NANO --count 1000
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.random_schemas import answer_random_schemas

from gar_edge.runtime import Gar

EXAMPLES = Path(__file__).parents[2] / "examples"


def main(
    model: Annotated[Path, typer.Option("-m", "--model", help="A gar-nano bundle.")],
    count: Annotated[int, typer.Option(min=2)] = 1000,
    tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 200,
) -> None:
    """Ask, and print the counts as JSON; an answer that is not valid ends it with the schema."""
    with Gar.load(model) as gar:
        scene = gar.open(EXAMPLES / "scene_1.png")
        print(
            json.dumps(answer_random_schemas(scene, str(EXAMPLES / "scene_1_mask_0.png"), count=count, tokens=tokens))
        )


if __name__ == "__main__":
    typer.run(main)
