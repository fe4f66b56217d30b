"""A few questions for a long time: memory and latency must stay as they are, and every answer what it was."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.options import Options

SCENES, REGIONS = 3, 4
WARM = 0.2  # of the time: caches fill, allocators settle
LEAST = 3  # rounds behind it
KEPT = 4096  # rounds whose figures are held: a record that grew for hours would be the leak that it looks for


@dataclass(frozen=True)
class Drift:
    """What changed between the first and the last fifth of a soak behind its warm-up.

    memory, latency: growth as a fraction, of resident bytes and of the median round's time. changed: answers that
    were not what they had been.
    """

    answers: int
    changed: int
    rss_bytes: int
    memory: float
    latency: float


@dataclass
class History:
    """Figures of many rounds in bounded memory: whenever it is full, every other one is dropped."""

    rows: list[tuple[float, float, int]] = field(default_factory=list)  # when, seconds of a round, resident bytes
    rounds: int = 0
    _every: int = 1

    def add(self, row: tuple[float, float, int]) -> None:
        if self.rounds % self._every == 0:
            self.rows.append(row)
        self.rounds += 1
        if len(self.rows) == KEPT:
            self.rows = self.rows[::2]
            self._every *= 2


def soak(gar: Gar, seconds: float, tick: Callable[[float], None]) -> Drift:
    """Ask about regions of a few pictures in turn; `tick` hears how much of the time has passed, 0 to 1."""
    random, side = np.random.default_rng(1), gar.manifest.preprocess.tile
    pictures = [random.integers(0, 256, (side, 2 * side, 3), np.uint8) for _ in range(SCENES)]
    masks = []
    for index in range(REGIONS):
        mask = np.zeros((side, 2 * side), np.bool_)
        mask[side // 4 : side // 2, index * side // REGIONS : (index + 1) * side // REGIONS] = True
        masks.append(mask)
    known: dict[tuple[int, int], tuple[int, ...]] = {}
    history = History()
    changed, begin, warm = 0, time.perf_counter(), 0
    least = 2 * SCENES  # every question twice: there must be something to compare
    while (elapsed := time.perf_counter() - begin) < seconds or history.rounds < max(warm + LEAST, least):
        which = history.rounds % SCENES
        start = time.perf_counter()
        scene = gar.open(pictures[which])
        for number, mask in enumerate(masks):
            tokens = scene.describe(mask, options=Options(max_new_tokens=16)).tokens
            changed += known.setdefault((which, number), tokens) != tokens
        history.add((elapsed, time.perf_counter() - start, resident()))
        if elapsed < WARM * seconds:
            warm = history.rounds
        tick(min(elapsed / seconds, 1.0))
    steady = [row for row in history.rows if row[0] >= WARM * seconds]
    fifth = max(1, len(steady) // 5)
    early, late = steady[:fifth], steady[-fifth:]
    return Drift(
        answers=history.rounds * REGIONS,
        changed=changed,
        rss_bytes=history.rows[-1][2],
        memory=_median(late, 2) / max(_median(early, 2), 1) - 1,
        latency=_median(late, 1) / _median(early, 1) - 1,
    )


def _median(history: list[tuple[float, float, int]], column: int) -> float:
    return statistics.median(row[column] for row in history)


def resident() -> int:
    """Resident bytes of this process; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    import resource

    return pages * resource.getpagesize()
