"""How long work tells what it is doing, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener of an export."""

    def begin(self, what: str, total: int | None = None) -> None:
        """A new piece of work; `total` bytes will be advanced, None where nobody can tell."""
        ...

    def advance(self, amount: int) -> None:
        """So many more bytes are done."""
        ...


class Silent:
    """Nobody listens."""

    def begin(self, what: str, total: int | None = None) -> None:
        pass

    def advance(self, amount: int) -> None:
        pass
