"""The page at `/`, and the API's own description at `/docs`: files of this package, nothing from elsewhere."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from starlette.responses import JSONResponse

from gar_edge.runtime.serve.api_errors import ApiError

PAGE = Path(__file__).parent / "page"
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "X-Frame-Options": "DENY"}
_KINDS = {".js": "text/javascript", ".html": "text/html", ".css": "text/css", ".json": "application/json"}


def page_routes(schema: Callable[[], dict[str, Any]]) -> APIRouter:
    """Routes of the page's files; only those that are there at the start. schema: of the API."""
    router = APIRouter(include_in_schema=False)
    files = {path.relative_to(PAGE).as_posix(): path for path in sorted(PAGE.rglob("*")) if path.is_file()}

    def sent(name: str) -> Response:
        path = files.get(name)
        if path is None:
            raise ApiError(404, "the page has no such file")
        kind = _KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return Response(path.read_bytes(), media_type=kind, headers=_HEADERS)

    @router.get("/")
    async def index() -> Response:
        return sent("index.html")

    @router.get("/docs")
    async def docs() -> Response:
        return sent("docs.html")

    @router.get("/page/{name:path}")
    async def asset(name: str) -> Response:
        return sent(name)

    @router.get("/openapi.json")
    async def openapi() -> Response:
        return JSONResponse(schema())

    return router
