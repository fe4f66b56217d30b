"""Pages of other servers that were allowed to ask: what their browsers want to be told (CORS)."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.middleware.cors import CORSMiddleware

from gar_edge.runtime.serve.guard import App, Message, Receive, Scope, Send


class CrossOrigin:
    """Nothing at all where no origin was allowed; else Starlette's own middleware."""

    def __init__(self, app: App, origins: Iterable[str]) -> None:
        allowed = sorted(origins)
        self._app: App = app
        if allowed:
            self._app = CORSMiddleware(
                _shared(app),
                allow_origins=allowed,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],  # OpenAI's client sends a dozen of its own; the origin was checked
                expose_headers=["Retry-After", "X-Request-ID"],
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _shared(app: App) -> App:
    """Without the header by which browsers would keep the answer from a page that may have it."""

    async def shared(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0] != b"cross-origin-resource-policy"]
                message = {**message, "headers": kept}
            await send(message)

        await app(scope, receive, sent)

    return shared
