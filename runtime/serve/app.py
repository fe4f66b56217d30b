"""The application: routes, errors and the page, behind the guard. Any ASGI server can run it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from gar_edge.runtime.errors import GarError
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.serve.access import Access
from gar_edge.runtime.serve.admission import Admission
from gar_edge.runtime.serve.answers import Desk
from gar_edge.runtime.serve.api_errors import ApiError, api_error_of
from gar_edge.runtime.serve.chat_completions import completion_routes
from gar_edge.runtime.serve.cross_origin import CrossOrigin
from gar_edge.runtime.serve.guard import App, Guard
from gar_edge.runtime.serve.limits import Limits
from gar_edge.runtime.serve.log import RequestLog
from gar_edge.runtime.serve.metrics import Metrics
from gar_edge.runtime.serve.page_routes import page_routes
from gar_edge.runtime.serve.patience import Readers
from gar_edge.runtime.serve.routes import ERRORS, scene_routes
from gar_edge.runtime.serve.scenes import SceneStore
from gar_edge.runtime.serve.service import Service
from gar_edge.runtime.serve.warned import delivered

READERS = 2

_ABOUT = """\
Questions about any region of a picture. A region is a box, points, outlines, run lengths, a mask or a scribble; a
question names its regions as `<Prompt0>`, `<Prompt1>`, …
"""


@dataclass(frozen=True)
class Served:
    """An application, and what whoever runs it must reach: the service, to stop it; the guard, to change keys."""

    app: App
    service: Service
    guard: Guard
    schema: Callable[[], dict[str, Any]] = field(repr=False)


def create_app(
    gar: Gar, *, queue: int, access: Access | None = None, limits: Limits | None = None, log: RequestLog | None = None
) -> Served:
    """The application that serves a model. queue: as the model was loaded with; so many questions are here at most."""
    access, limits = access or Access(), limits or Limits()
    log = log or RequestLog(lambda line: None)
    scenes = SceneStore(gar, limits)
    metrics = Metrics(gar, scenes=scenes.counts)
    admission = Admission(limits, places=queue, keys=bool(access.keys))
    service = Service(
        gar=gar,
        limits=limits,
        admission=admission,
        scenes=scenes,
        desk=Desk(gar.scheduler),
        metrics=metrics,
        log=log,
        readers=Readers(READERS, keys=bool(access.keys)),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with delivered():
            yield

    api = FastAPI(
        title="gar-serve",
        description=_ABOUT,
        version=version("gar-edge"),
        docs_url=None,  # FastAPI's pages come from a CDN
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # behind TLS it would lead to http:
        lifespan=lifespan,
    )
    api.include_router(completion_routes(service))
    api.include_router(scene_routes(service))
    _add_watching(api, service)
    schema = partial(_description, api)
    api.include_router(page_routes(schema))
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(GarError, _told)
    api.add_exception_handler(ApiError, _told)
    guarded = Guard(api, access=access, admission=admission, limits=limits, metrics=metrics, log=log)
    return Served(CrossOrigin(guarded, access.origins), service, guarded, schema)


def _description(api: FastAPI) -> dict[str, Any]:
    """FastAPI's, without its own form of errors, which no answer has."""
    described = api.openapi()
    for operations in described["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        described["components"]["schemas"].pop(name, None)
    return described


def _add_watching(api: FastAPI, service: Service) -> None:
    """What looks after the server asks for."""

    @api.get("/healthz", tags=["watching"])
    async def alive() -> dict[str, str]:
        """Whether the process runs."""
        return {"status": "ok"}

    @api.get("/readyz", tags=["watching"], responses={503: ERRORS[503]})
    async def ready() -> dict[str, str]:
        """Whether questions are taken."""
        if service.admission.stopping:
            raise ApiError(503, "the server is stopping", code="stopping")
        return {"status": "ready", "model": service.gar.pipeline.manifest.name}

    @api.get("/metrics", tags=["watching"], responses={401: ERRORS[401], 200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _invalid(request: Request, error: Exception) -> Response:
    """A body that is not as it must be: the first thing that is wrong with it, and where."""
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json" and not kind.endswith("+json"):
        return _answer(ApiError(415, "the body must be JSON, with Content-Type: application/json"))
    # Of a union's branches the one that came furthest; their names are pydantic's, not the client's.
    first = max(error.errors(), key=lambda one: len(one.get("loc", ())))
    place = [str(step) for step in first.get("loc", ()) if "[" not in str(step) and step not in ("body", "path", "str")]
    if first.get("type") == "json_invalid":
        return _answer(ApiError(400, "the body is not JSON"))
    where = ".".join(place)
    message = str(first.get("msg", "not valid"))
    return _answer(ApiError(400, f"{where}: {message}" if where else message, param=where[:200] or None))


def _http(request: Request, error: Exception) -> Response:
    """What the router refuses."""
    assert isinstance(error, HTTPException)
    message = {404: "there is nothing at this path; /docs lists what is", 405: "not by this method"}
    return _answer(
        ApiError(error.status_code, message.get(error.status_code, str(error.detail)), headers=error.headers or {})
    )


def _told(request: Request, error: Exception) -> Response:
    fault = api_error_of(error)
    if fault.status >= 500 and not isinstance(error, ApiError):
        raise error  # the guard writes down where it comes from
    return _answer(fault)


def _answer(fault: ApiError) -> Response:
    return JSONResponse(fault.to_json(), fault.status, headers=fault.headers)
