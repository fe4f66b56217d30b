"""Server-sent events, for as long as somebody is there to read them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

T = TypeVar("T")


class ClientGoneError(ConnectionError):
    """Whoever asked has left."""


async def while_there(
    receive: Callable[[], Awaitable[Message]], work: Coroutine[Any, Any, T], *, left: Callable[[], None] | None = None
) -> T:
    """The work's result; it is cancelled, and `ClientGoneError` raised, where the client leaves before.

    left: called then, for work that goes on in a thread.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            if left is not None:
                left()
            raise ClientGoneError("the client has left")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A body of events, each sent at once. close: called when it is over, however it ends."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], *, close: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]  # nobody knows it yet
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as they come."""
        try:
            await while_there(receive, self._send(send))
        finally:
            self._close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(name: str, data: object) -> bytes:
    """An event with a name, and JSON for its data."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def unnamed(data: object) -> bytes:
    """An event as OpenAI's clients read them: JSON, or the text that ends a stream."""
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
