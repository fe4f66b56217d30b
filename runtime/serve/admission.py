"""How much is taken on at once: requests, of each key, and bytes of their bodies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gar_edge.runtime.serve.api_errors import RETRY, ApiError
from gar_edge.runtime.serve.limits import Limits


@dataclass
class Ticket:
    """A request that was let in, as `count` questions, with room for `held` bytes of its body."""

    owner: str
    count: int = 1
    held: int = 0


class Admission:
    """Counts what is here; of the event loop's thread alone.

    places: questions that may be here, those in the making and those that wait, and no more than the scheduler lets
    wait; beyond it requests are refused (429) before their bodies are read, so that memory is bounded whatever comes.
    """

    def __init__(self, limits: Limits, *, places: int, keys: bool) -> None:
        """keys: whether owners are keys, which have a limit of their own."""
        self._limits = limits
        self._places = places
        self._per_owner = limits.per_key if keys else places
        self._owners: Counter[str] = Counter()
        self._bytes = 0
        self.stopping = False

    @property
    def inside(self) -> int:
        """Questions that are here."""
        return self._owners.total()

    def admit(self, owner: str) -> Ticket:
        """Let a request in until it is released; `ApiError` where there is no room."""
        if self.stopping:
            raise ApiError(503, "the server is stopping; ask again later", code="stopping", headers=RETRY)
        ticket = Ticket(owner, 0)
        self._take(ticket, 1)
        return ticket

    def release(self, ticket: Ticket) -> None:
        """A request is over; may be called again."""
        self._owners[ticket.owner] -= ticket.count
        if not self._owners[ticket.owner]:
            del self._owners[ticket.owner]
        self._bytes -= ticket.held
        ticket.count = ticket.held = 0

    def grow(self, ticket: Ticket, count: int) -> None:
        """A request has so many questions."""
        self._take(ticket, count - ticket.count)

    def hold(self, ticket: Ticket, size: int) -> None:
        """Room for so many bytes more of a body; `ApiError` where there is none."""
        if ticket.held + size > self._limits.body_bytes:
            raise ApiError(
                413,
                f"the body is larger than {self._limits.body_bytes >> 20} MiB; send a smaller picture",
                code="body",
            )
        if self._bytes + size > self._limits.bodies_bytes:
            raise ApiError(429, "too many large requests at once; ask again later", code="memory", headers=RETRY)
        ticket.held += size
        self._bytes += size

    def _take(self, ticket: Ticket, count: int) -> None:
        if ticket.count + count > min(self._places, self._per_owner):
            raise ApiError(
                400,
                f"{ticket.count + count} questions in one request, more than are ever taken at once "
                f"({min(self._places, self._per_owner)}); ask in parts",
                param="regions",
            )
        if self._owners[ticket.owner] + count > self._per_owner:
            raise ApiError(429, f"{self._per_owner} requests of this key are here already", code="key", headers=RETRY)
        if self.inside + count > self._places:
            raise ApiError(429, f"{self.inside} requests are here already", code="queue_full", headers=RETRY)
        self._owners[ticket.owner] += count
        ticket.count += count
