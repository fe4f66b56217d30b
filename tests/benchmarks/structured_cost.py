"""What choosing and structures cost beside a plain answer, as ratios in one run.

    python tests/benchmarks/structured_cost.py -m INT8_1B --rounds 5

choose: a fresh picture and four short choices, against the first token about a fresh picture. held: milliseconds a
token of an answer whose structure allows everything, against the same answer without one. schema: the same of a closed
object, whose names go through the engine together. host: what the matcher takes a token, longest and mean.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from gar_edge.runtime import Answer, Gar, Options
from gar_edge.runtime.generate.guide import Matcher

QUESTION = "What is <Prompt0>?"
CHOICES = ("yes", "no", "red", "blue")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue", "white", "black"]},
        "name": {"type": "string", "maxLength": 40},
        "graspable": {"type": "boolean"},
    },
    "required": ["colour", "name", "graspable"],
}


class Stopped:
    """Seconds that the matcher takes for each token."""

    def __init__(self) -> None:
        self.tokens: list[float] = []
        self._looked = 0.0
        look, take = Matcher.look, Matcher.take

        def timed_look(matcher: Matcher) -> None:
            begin = time.perf_counter()
            look(matcher)
            self._looked += time.perf_counter() - begin

        def timed_take(matcher: Matcher, token: int) -> None:
            begin = time.perf_counter()
            take(matcher, token)
            self.tokens.append(self._looked + time.perf_counter() - begin)
            self._looked = 0.0

        Matcher.look, Matcher.take = timed_look, timed_take  # type: ignore[method-assign]


def noise(seed: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def per_token(answer: Answer) -> float:
    """Milliseconds of decode a token behind the first."""
    return answer.timings_ms.decode / max(len(answer.tokens) - 1, 1)


def main(
    model: Annotated[Path, typer.Option("-m", "--model")],
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    tokens: Annotated[int, typer.Option(min=2)] = 48,
    tiles: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Ask in turn, and print medians as JSON."""
    stopped = Stopped()
    gar = Gar.load(model)
    side = gar.manifest.preprocess.tile
    mask = np.zeros((side, side), np.bool_)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    first, choose, free, held, schema = [], [], [], [], []
    scene = gar.open(noise(0, side), max_tiles=tiles)
    for number in range(rounds):
        pictures = [gar.open(noise(2 * number + kind, side), max_tiles=tiles) for kind in (1, 2)]
        first.append(pictures[0].ask(QUESTION, {0: mask}, options=Options(max_new_tokens=1)).timings_ms.total)
        choose.append(pictures[1].choose(QUESTION, {0: mask}, CHOICES).timings_ms.total)
        plain = scene.ask(QUESTION, {0: mask}, options=Options(max_new_tokens=tokens))
        same = scene.ask(QUESTION, {0: mask}, options=Options(max_new_tokens=tokens, regex=r"(.|\n)*"))
        free.append(per_token(plain))
        held.append(per_token(same))
        stopped.tokens.clear()
        schema.append(per_token(scene.ask(QUESTION, {0: mask}, options=Options(schema=SCHEMA))))
    median = statistics.median
    print(
        json.dumps(
            {
                "first_token_ms": round(median(first), 1),
                "choose_ms": round(median(choose), 1),
                "choose_to_first": round(median(map(lambda a, b: a / b, choose, first)), 3),
                "free_ms": round(median(free), 3),
                "held_to_free": round(median(map(lambda a, b: a / b, held, free)), 3),
                "same_tokens": plain.tokens == same.tokens,
                "schema_to_free": round(median(map(lambda a, b: a / b, schema, free)), 3),
                "host_ms": {
                    "mean": round(1e3 * statistics.mean(stopped.tokens), 4),
                    "longest": round(1e3 * max(stopped.tokens), 4),
                },
            }
        )
    )


if __name__ == "__main__":
    typer.run(main)
