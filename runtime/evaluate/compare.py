"""Whether B answers as well as A: agreement, and the difference of marks with its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gar_edge.runtime.evaluate.run import trimmed
from gar_edge.runtime.evaluate.task import Item

DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """Of questions that both answered. agreement: share of equal answers. a, b: mean marks; difference: b - a, with the
    interval that holds it at 95 % (paired bootstrap); p: McNemar's exact, of marks that are right or wrong. Without
    marks these are None.
    """

    questions: int
    agreement: float | None
    a: float | None = None
    b: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, rounded to six places."""
        interval = None if self.interval is None else [round(end, 6) for end in self.interval]
        values = {name: value for name, value in vars(self).items() if name not in ("questions", "interval")}
        rounded = {name: None if value is None else round(value, 6) for name, value in values.items()}
        return {"questions": self.questions, **rounded, "interval": interval}


@dataclass(frozen=True)
class Comparison:
    """Over all, by kind, which items' answers changed, and how many have an answer or mark of A and none of B."""

    whole: Difference
    kinds: dict[str, Difference]
    changed: tuple[int, ...]
    lacking: int

    def worse(self, margin: float) -> bool:
        """Whether B's mean mark is lower than A's by more than `margin`."""
        return self.whole.difference is not None and self.whole.difference < -margin

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return {
            "all": self.whole.to_json(),
            "kinds": {kind: difference.to_json() for kind, difference in self.kinds.items()},
            "changed": len(self.changed),
            "lacking": self.lacking,
        }


def compare(
    items: Sequence[Item],
    a: Sequence[str | None],
    b: Sequence[str | None],
    marks_a: Sequence[float | None] | None = None,
    marks_b: Sequence[float | None] | None = None,
) -> Comparison:
    """Answers, and marks if there are any, by item; what one of both lacks is left out."""
    here = [place for place in range(len(items)) if a[place] is not None]
    if marks_a is not None:
        here = [place for place in here if marks_a[place] is not None]
    both = [place for place in here if b[place] is not None and (marks_b is None or marks_b[place] is not None)]

    def difference(places: Sequence[int]) -> Difference:
        equal = [trimmed(a[place] or "") == trimmed(b[place] or "") for place in places]
        agreement = sum(equal) / len(equal) if equal else None
        if marks_a is None or marks_b is None or not places:
            return Difference(len(places), agreement)
        pairs = np.array([(marks_a[place], marks_b[place]) for place in places], np.float64)
        return Difference(
            len(places),
            agreement,
            float(pairs[:, 0].mean()),
            float(pairs[:, 1].mean()),
            float((pairs[:, 1] - pairs[:, 0]).mean()),
            interval(pairs[:, 1] - pairs[:, 0]),
            mcnemar(pairs) if set(np.unique(pairs)) <= {0.0, 1.0} else None,
        )

    kinds: dict[str, list[int]] = {}
    for place in both:
        kinds.setdefault(items[place].kind, []).append(place)
    changed = tuple(place for place in both if trimmed(a[place] or "") != trimmed(b[place] or ""))
    by_kind = {kind: difference(some) for kind, some in sorted(kinds.items())}
    return Comparison(difference(both), by_kind, changed, len(here) - len(both))


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Where the mean of paired differences [N] lies at 95 %: percentiles of means of N draws with replacement.

    Equal values are drawn together, which is the same and needs no N draws each time (a multinomial).
    """
    values, counts = np.unique(differences, return_counts=True)
    total = int(counts.sum())
    rng = np.random.default_rng(0)
    means = [rng.multinomial(total, counts / total, DRAWS // 10) @ values / total for _ in range(10)]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mcnemar(pairs: NDArray[np.float64]) -> float:
    """McNemar's exact test, two-sided, of right and wrong [N,2]: how likely so uneven a change is by chance."""
    better = int(((pairs[:, 0] == 0) & (pairs[:, 1] == 1)).sum())
    worse = int(((pairs[:, 0] == 1) & (pairs[:, 1] == 0)).sum())
    changes = better + worse
    tail = ways = 1  # to change none, then one, and so on, to the better
    for count in range(min(better, worse)):
        ways = ways * (changes - count) // (count + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**changes)
