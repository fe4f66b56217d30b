"""Thousands of requests on gar-nano in random schedules: is every answer the one that it gets alone?

    python tests/benchmarks/schedules.py -m NANO --requests 2000

Joins, cancels, time limits, closed streams, evictions, draws beside greedy answers, guesses; a schedule's seed makes it
again, as far as threads can be made to do the same again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.schedules import Schedule, run_schedule


def main(
    model: Annotated[Path, typer.Option("-m", "--model")],
    requests: Annotated[int, typer.Option(min=1)] = 2000,
    threads: Annotated[int, typer.Option(min=1)] = 8,
    each: Annotated[int, typer.Option(min=1, help="Requests of one schedule.")] = 200,
) -> None:
    """Print one JSON object; exit code 1 where an answer was another one."""
    begin, totals, wrong = time.perf_counter(), {"whole": 0, "cut": 0, "refused": 0}, []
    for seed in range(-(-requests // each)):
        outcome = run_schedule(model, Schedule(requests=each, threads=threads, seed=seed, batch=2 + seed % 7))
        totals = {name: count + getattr(outcome, name) for name, count in totals.items()}
        wrong += outcome.wrong
    seconds = round(time.perf_counter() - begin, 1)
    print(json.dumps({**totals, "wrong": wrong, "seconds": seconds}))
    raise typer.Exit(bool(wrong))


if __name__ == "__main__":
    typer.run(main)
