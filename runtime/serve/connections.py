"""uvicorn's HTTP/1.1 connections, with time limits for what a client must send, and a bound on their number.

uvicorn has none of these: half a request's head may stay open for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gar_edge.runtime.serve.limits import Limits


class GuardedConnection(H11Protocol):
    """One connection; `limited` makes the class for a server's limits."""

    limits = Limits()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.app_state = {**self.app_state, "connection": self}  # which requests find in their scope
        self._stage: object = None
        self._deadline: asyncio.TimerHandle | None = None
        self._came = self._end = 0.0  # when a body's last piece came, and when all of it must be there

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._await("head", self.limits.header_seconds)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.IDLE:
            self._await("head", self.limits.header_seconds)
        elif state is h11.SEND_BODY:
            self._await("body", self.limits.body_seconds)
            self._came = self.loop.time()
        else:
            self._await(None, 0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await(None, 0)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:  # from here on it may be idle
            self._await(None, 0)
        self._watch_unsent(self.transport.get_write_buffer_size())

    def abort(self) -> None:
        """Close at once, without what is still to be sent."""
        self.transport.abort()

    def _await(self, stage: str | None, seconds: float) -> None:
        """What must come by a time; a stage's time runs from its beginning, however much of it trickles in."""
        if stage == self._stage:
            return
        self._stage = stage
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if stage == "body":
            self._end = self.loop.time() + seconds
            self._deadline = self.loop.call_later(self.limits.header_seconds, self._look)
        elif stage is not None:
            self._deadline = self.loop.call_later(seconds, self.abort)

    def _look(self) -> None:
        """Whether a body still comes: none that has stopped for as long as a head may take, unless we do not read."""
        now = self.loop.time()
        if now >= self._end or (now - self._came >= self.limits.header_seconds and not self.flow.read_paused):
            self.abort()
        else:
            wait = min(self._end, self._came + self.limits.header_seconds) - now
            self._deadline = self.loop.call_later(max(wait, 0.1), self._look)

    def _watch_unsent(self, size: int) -> None:
        """Uvicorn waits for room before it writes; who waits for what was written last?"""
        if size:
            self.loop.call_later(self.limits.send_seconds, self._abort_unsent, self.cycle, size)

    def _abort_unsent(self, answered: object, before: int) -> None:
        if self.cycle is not answered:  # its client has read that far, and asked again
            return
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.abort()
        else:
            self._watch_unsent(left)


def limited(limits: Limits) -> type[GuardedConnection]:
    """The class of connections for these limits."""
    return type("LimitedConnection", (GuardedConnection,), {"limits": limits})
