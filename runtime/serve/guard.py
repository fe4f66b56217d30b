"""What every request passes through: who asks, how much comes and how slowly, and what is written down about it.

Plain ASGI, outermost, so that nothing of a refused request is read and no error gets past it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect

from gar_edge.runtime.serve.access import OPEN, OPEN_FOLDER, Access
from gar_edge.runtime.serve.admission import Admission
from gar_edge.runtime.serve.api_errors import ApiError, api_error_of
from gar_edge.runtime.serve.body_room import BodyRoom, Held
from gar_edge.runtime.serve.events import ClientGoneError
from gar_edge.runtime.serve.limits import Limits
from gar_edge.runtime.serve.log import RequestLog
from gar_edge.runtime.serve.metrics import Metrics
from gar_edge.runtime.serve.visit import Visit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_GONE = 499  # a client that left before its answer, as nginx writes it down; nobody receives it


class Guard:
    """Wraps the application."""

    def __init__(
        self, app: App, *, access: Access, admission: Admission, limits: Limits, metrics: Metrics, log: RequestLog
    ) -> None:
        self.access = access  # another may take its place, when keys are read again
        self._app = app
        self._admission = admission
        self._limits = limits
        self._metrics = metrics
        self._log = log
        self._room = BodyRoom(limits, share=0.5 if access.keys else 1.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        visit = Visit(_wished_id(headers.get("x-request-id")) or secrets.token_hex(8))
        scope.setdefault("state", {})["visit"] = visit
        method = scope["method"]
        if method == "HEAD":  # the server leaves the body out
            scope = {**scope, "method": "GET"}
        reply = _Reply(scope, send, visit, self._limits)
        try:
            await self._visit(scope, receive, reply, visit, headers)
        except (ClientGoneError, ClientDisconnect):
            visit.gone = True
            reply.abort()
        except Exception as error:
            if reply.begun or visit.gone:
                if not visit.gone:
                    self._log.failed(visit.id, error)
                reply.abort()
            else:
                fault = api_error_of(error)
                if fault.status == 500 and not isinstance(error, ApiError):
                    self._log.failed(visit.id, error)
                await reply.fault(fault)
        finally:
            if visit.gone or not visit.status:
                visit.status = _GONE
            self._metrics.request(_route(scope), visit.status, time.perf_counter() - visit.begun)
            self._log.request(visit, method=method, route=_route(scope), client=scope.get("client"))

    async def _visit(
        self, scope: Scope, receive: Receive, reply: _Reply, visit: Visit, headers: dict[str, str]
    ) -> None:
        path, method = scope["path"], scope["method"]
        asset = path in OPEN or path.startswith(OPEN_FOLDER)
        self.access.check_browser(headers, asset=asset)
        if not asset:
            client = scope.get("client") or ("", 0)
            visit.owner = self.access.owner(headers, client[0])
        if asset or method not in ("POST", "PUT", "PATCH"):
            await self._app(scope, _no_body(receive), reply)
            return
        self._admission.check(visit.owner)
        held = self._room.begin(visit.owner)
        try:
            body = await self._body(receive, headers, held)
            self._room.whole(held)
            visit.received = len(body)
            visit.ticket = self._admission.admit(visit.owner)
            reply.when_said = partial(self._admission.release, visit.ticket)
            await self._app(scope, _replayed(body, receive), reply)
        finally:
            if visit.ticket is not None:
                self._admission.release(visit.ticket)
            self._room.end(held)

    async def _body(self, receive: Receive, headers: dict[str, str], held: Held) -> bytes:
        """The whole of it, as far as it is one that would be read; `ApiError` as soon as it is not."""
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit():
            self._room.check(int(length))
        json_body = "json" in headers.get("content-type", "").lower()
        body, values = bytearray(), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece = message.get("body", b"")
            if json_body:
                # Pictures in base64 have none of these: what is counted is how much there is to parse.
                values += piece.count(b",") + piece.count(b"[") + piece.count(b"{")
                if values > self._limits.values:
                    raise ApiError(400, f"the body has more than {self._limits.values} values; send less at once")
            await self._room.hold(held, len(piece))
            body += piece
            if not message.get("more_body", False):
                return bytes(body)


class _Reply:
    """Sends an answer: with the headers that every one has, and to clients that take it."""

    def __init__(self, scope: Scope, send: Send, visit: Visit, limits: Limits) -> None:
        self._scope = scope
        self._send = send
        self._visit = visit
        self._seconds = limits.send_seconds
        self._loop = asyncio.get_running_loop()
        self.begun = False
        self.when_said: Callable[[], None] = _nothing

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            self._visit.status = message["status"]
            named = {name.lower() for name, _ in message["headers"]}
            added = [(name, value) for name, value in _SAFE if name not in named]
            message["headers"] = [*message["headers"], *added, (b"x-request-id", self._visit.id.encode())]
        self._visit.sent += len(message.get("body", b""))
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.when_said()  # now, for a client may ask again before the rest of this is tidied up
        patience = self._loop.call_later(self._seconds, self._give_up)
        try:
            await self._send(message)  # returns, too, once the connection is gone
        except OSError:
            self._visit.gone = True
        finally:
            patience.cancel()
        if self._visit.gone:
            raise ClientGoneError("the client takes no answer")

    def _give_up(self) -> None:
        self._visit.gone = True
        self.abort()

    async def fault(self, fault: ApiError) -> None:
        """Answer with an error."""
        body = json.dumps(fault.to_json()).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **fault.headers}
        listed = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        try:
            await self({"type": "http.response.start", "status": fault.status, "headers": listed})
            await self({"type": "http.response.body", "body": body, "more_body": False})
        except ClientGoneError:
            pass

    def abort(self) -> None:
        """Close the connection at once: what was sent so far is not the whole answer."""
        connection = self._scope.get("state", {}).get("connection")
        if connection is not None:
            connection.abort()


def _nothing() -> None:
    pass


def _no_body(receive: Receive) -> Receive:
    """For requests that have none: what comes all the same is not kept."""

    async def emptied() -> Message:
        message = await receive()
        return {**message, "body": b""} if message["type"] == "http.request" else message

    return emptied


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that has come; after it, what comes: that the client leaves."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return left.pop() if left else await receive()

    return replayed


def _wished_id(given: str | None) -> str | None:
    """A client's own name for its request, where it is a plain one."""
    plain = given is not None and 0 < len(given) <= 64 and given.isascii() and given.replace("-", "").isalnum()
    return given if plain else None


def _route(scope: Scope) -> str:
    """The route's pattern: paths hold ids, and whatever strangers try."""
    return str(getattr(scope.get("route"), "path", "")) or "none"
