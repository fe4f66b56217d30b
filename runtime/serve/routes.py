"""Our own API: open pictures, and what is asked about them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import JSONResponse

from gar_edge.runtime.errors import GarImageError, GarPromptError
from gar_edge.runtime.generate.choosing import Choosing
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.serve.api_errors import ApiError
from gar_edge.runtime.serve.bodies import (
    Answers,
    Ask,
    Choose,
    Converse,
    Describe,
    ErrorBody,
    OpenScene,
    Outline,
    Outlines,
    SceneInfo,
)
from gar_edge.runtime.serve.pictures import ALIASES, TYPES, check_picture, from_url
from gar_edge.runtime.serve.questions import Wish, options_of, outlined, read_masks, split
from gar_edge.runtime.serve.scenes import KeptScene
from gar_edge.runtime.serve.service import Service, visit_of
from gar_edge.runtime.serve.turns import conversation
from gar_edge.runtime.serve.warned import hearing

EVENTS = {"text/event-stream": {"schema": {"type": "string", "description": "where stream is true"}}}
_PICTURE = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in TYPES}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "What was asked cannot be.",
        401: "A key is needed.",
        403: "Asked by a page, or under a name, that is not allowed.",
        404: "There is no such scene, model or path.",
        413: "The body is too large.",
        415: "A content type that is not taken.",
        429: "Too much at once; Retry-After says when to ask again.",
        500: "The engine failed.",
        503: "The server is stopping.",
    }.items()
}


def scene_routes(service: Service) -> APIRouter:
    """POST /v1/scenes and what is below it."""
    router = APIRouter(prefix="/v1/scenes", tags=["scenes"], responses=ERRORS)
    limits, scenes = service.limits, service.scenes

    def scene_of(request: Request, key: str) -> KeptScene:
        return scenes.get(key, visit_of(request).owner)

    @router.post(
        "",
        status_code=201,
        response_model=SceneInfo,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {**_PICTURE, "application/json": {"schema": OpenScene.model_json_schema()}},
            }
        },
    )
    async def open_scene(request: Request) -> Response:
        """Open a picture: its bytes as the body, or a `data:` URL in JSON."""
        data, max_tiles = _picture(await request.body(), request.headers.get("content-type", ""))
        check_picture(data, limits, GarImageError, "image")
        with hearing() as heard:
            owner = visit_of(request).owner
            kept = await service.work(request, lambda _: scenes.open(data, owner, max_tiles=max_tiles, warnings=heard))
        return JSONResponse(_info(kept, limits.scene_seconds), 201)

    @router.get("/{key}", response_model=SceneInfo)
    async def look_at_scene(request: Request, key: str) -> Response:
        """What is known of an open picture; keeps it open for longer."""
        return JSONResponse(_info(scene_of(request, key), limits.scene_seconds))

    @router.delete("/{key}", status_code=204)
    async def close_scene(request: Request, key: str) -> Response:
        """Let go of a picture, its features and caches."""
        scenes.drop(key, visit_of(request).owner)
        return Response(status_code=204)

    @router.post("/{key}/ask", response_model=Answers, responses={200: {"content": EVENTS}})
    async def ask(request: Request, key: str, body: Ask) -> Response:
        """Ask a question about regions, or many questions, which are answered side by side."""
        given = [Wish(one.question, one.regions) for one in body.questions]
        if body.questions and (body.question is not None or body.regions is not None):
            raise GarPromptError("question and regions, or questions: not both")
        if not given:
            if body.question is None:
                raise GarPromptError("question is missing; /describe describes without one")
            given = [Wish(body.question, body.regions)]
        scene = scene_of(request, key).scene
        return await service.answered(request, scene, given, options_of(body, limits), stream=body.stream)

    @router.post("/{key}/describe", response_model=Answers, responses={200: {"content": EVENTS}})
    async def describe(request: Request, key: str, body: Describe) -> Response:
        """Describe each of the regions, all side by side; answers in their order."""
        wishes = [Wish(None, [one]) for one in split(body.regions)]
        scene = scene_of(request, key).scene
        return await service.answered(request, scene, wishes, options_of(body, limits), stream=body.stream)

    @router.post("/{key}/choose", response_model=Answers)
    async def choose(request: Request, key: str, body: Choose) -> Response:
        """The likeliest of several answers, with the probability of each; none where it is in doubt."""
        if (longest := max(map(len, body.choices))) > limits.question // 2:
            raise GarPromptError(f"a choice of {longest} characters; at most {limits.question // 2} are taken")
        choosing = Choosing(body.choices, body.normalise, body.abstain_below)
        options = Options(
            seconds=min(body.seconds or limits.seconds, limits.seconds), live=body.live, choosing=choosing
        )
        scene = scene_of(request, key).scene
        return await service.answered(request, scene, [Wish(body.question, body.regions)], options, stream=False)

    @router.post("/{key}/chat", response_model=Answers, responses={200: {"content": EVENTS}})
    async def chat(request: Request, key: str, body: Converse) -> Response:
        """The next answer of a conversation, which the request tells from its beginning; its cache is continued."""
        wish = conversation([(turn.question, turn.answer) for turn in body.turns], body.question, body.regions)
        scene = scene_of(request, key).scene
        return await service.answered(request, scene, [wish], options_of(body, limits), stream=body.stream)

    @router.post("/{key}/outline", response_model=Outlines)
    async def outline(request: Request, key: str, body: Outline) -> Response:
        """The masks that boxes, points and the like turn out to be."""
        scene = scene_of(request, key).scene
        with hearing() as heard:
            found = await service.work(
                request, lambda patience: outlined(read_masks(scene, body.regions, limits, patience))
            )
        return JSONResponse({"regions": found, "warnings": heard})

    return router


def _picture(body: bytes, kind: str) -> tuple[bytes, int | None]:
    """A picture's bytes, and how many tiles it may have."""
    kind = kind.partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            opened = OpenScene.model_validate_json(body)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from None
        return from_url(opened.image, GarImageError, "image"), opened.max_tiles
    if kind not in (*TYPES, *ALIASES):
        raise ApiError(
            415,
            f"a picture is sent as {', '.join(TYPES)}, or as a data: URL in JSON, not as {kind[:60] or 'nothing'}",
            param="image",
        )
    return body, None


def _info(kept: KeptScene, seconds: float) -> dict[str, Any]:
    height, width = kept.scene.image.shape[:2]
    return {
        "id": kept.id,
        "width": width,
        "height": height,
        "grid": list(kept.scene.grid),
        "tiles": len(kept.scene.tiles),
        "expires_in": seconds,
        "warnings": kept.warnings,
    }
