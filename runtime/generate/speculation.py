"""Prompt look-up: guessing how a text goes on from what followed the same words before."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST, SHORTEST = 4, 2  # words in a row that must have been seen, the longest first


class PromptLookup:
    """An index of a growing text's n-grams.

    The decoder checks a guess in one run: it reads the weights once for all of its tokens, which is what a step
    costs. (Saxena, "Prompt Lookup Decoding", 2023.)
    """

    def __init__(self, ids: Iterable[int]) -> None:
        self._ids: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}  # where the text went on after an n-gram, the latest time
        self.extend(ids)

    @property
    def length(self) -> int:
        return len(self._ids)

    def extend(self, ids: Iterable[int]) -> None:
        for token in ids:
            end = len(self._ids)
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                self._behind[tuple(self._ids[end - size : end])] = end
            self._ids.append(token)

    def guess(self, most: int) -> list[int]:
        """Up to `most` tokens; none where the text's end was not seen before."""
        for size in range(min(LONGEST, len(self._ids)), SHORTEST - 1, -1):
            begin = self._behind.get(tuple(self._ids[-size:]))
            if begin is not None:
                return self._ids[begin : begin + max(most, 0)]
        return []
