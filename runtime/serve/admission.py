"""How many questions are taken on at once, of all and of each key."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gar_edge.runtime.serve.api_errors import RETRY, ApiError
from gar_edge.runtime.serve.limits import Limits


@dataclass
class Ticket:
    """A request that was let in, as `count` questions."""

    owner: str
    count: int = 0


class Admission:
    """Counts what is here; of the event loop's thread alone.

    places: questions that may be here, those in the making and those that wait, and no more than the scheduler lets
    wait; beyond it requests are refused (429) rather than kept.
    """

    def __init__(self, limits: Limits, *, places: int, keys: bool) -> None:
        """keys: whether owners are keys, which have a limit of their own."""
        self._places = places
        self._per_key = min(places, limits.per_key) if keys else None
        self._owners: Counter[str] = Counter()
        self.stopping = False

    @property
    def inside(self) -> int:
        """Questions that are here."""
        return self._owners.total()

    def check(self, owner: str) -> None:
        """`ApiError` where a request would not be let in now: before its body is read."""
        self._check(owner, 0, 1)

    def admit(self, owner: str) -> Ticket:
        """Let a request in until it is released; `ApiError` where there is no room."""
        ticket = Ticket(owner)
        self.grow(ticket, 1)
        return ticket

    def grow(self, ticket: Ticket, count: int) -> None:
        """A request has so many questions."""
        more = count - ticket.count
        self._check(ticket.owner, ticket.count, more)
        self._owners[ticket.owner] += more
        ticket.count = count

    def release(self, ticket: Ticket) -> None:
        """A request is over; may be called again."""
        self._owners[ticket.owner] -= ticket.count
        if not self._owners[ticket.owner]:
            del self._owners[ticket.owner]
        ticket.count = 0

    def _check(self, owner: str, count: int, more: int) -> None:
        if self.stopping:
            raise ApiError(503, "the server is stopping; ask again later", code="stopping", headers=RETRY)
        most = self._places if self._per_key is None else self._per_key
        if count + more > most:
            raise ApiError(
                400,
                f"{count + more} questions in one request, more than are ever taken at once ({most}); ask in parts",
                param="regions",
            )
        if self._per_key is not None and self._owners[owner] + more > self._per_key:
            raise ApiError(429, f"{self._per_key} questions of this key are here already", code="key", headers=RETRY)
        if self.inside + more > self._places:
            raise ApiError(429, f"{self.inside} questions are here already", code="queue_full", headers=RETRY)
