"""`POST /v1/chat/completions` and `GET /v1/models`, as OpenAI's clients know them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from gar_edge.runtime.errors import GarImageError
from gar_edge.runtime.generate.answer import Answer
from gar_edge.runtime.generate.logprobs import TokenLogprob
from gar_edge.runtime.scene import Scene
from gar_edge.runtime.serve.answers import Making, Said
from gar_edge.runtime.serve.api_errors import ApiError, api_error_of
from gar_edge.runtime.serve.conversation import Asked, chat_options, read_messages
from gar_edge.runtime.serve.events import EventStream, unnamed
from gar_edge.runtime.serve.openai_bodies import ChatCompletion, Completion, ModelInfo, ModelList
from gar_edge.runtime.serve.pictures import check_picture
from gar_edge.runtime.serve.questions import Prepared
from gar_edge.runtime.serve.routes import ERRORS, EVENTS
from gar_edge.runtime.serve.service import Service, visit_of
from gar_edge.runtime.serve.visit import Visit
from gar_edge.runtime.serve.warned import hearing


def completion_routes(service: Service) -> APIRouter:
    """OpenAI's routes."""
    router = APIRouter(prefix="/v1", tags=["openai"], responses=ERRORS)
    gar, limits = service.gar, service.limits
    model = gar.manifest.name
    names = {model, gar.manifest.source.name}
    info = {
        "id": model,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "gar-edge",
        "gar": {
            "regions": list(gar.manifest.prompt.regions),
            "context": gar.pipeline.decoder.longest,
            "engine": gar.pipeline.backend.name,
            "precision": gar.manifest.precision,
            "limits": limits.to_json(),
        },
    }

    @router.get("/models", response_model=ModelList)
    async def list_models() -> Response:
        """The model that is served, and what it takes."""
        return JSONResponse({"object": "list", "data": [info]})

    @router.get("/models/{name}", response_model=ModelInfo)
    async def look_at_model(name: str) -> Response:
        """The model of this name."""
        _check_model(name, names)
        return JSONResponse(info)

    @router.post("/chat/completions", response_model=Completion, responses={200: {"content": EVENTS}})
    async def complete(request: Request, body: ChatCompletion) -> Response:
        """Ask about regions of a picture: content parts of type region, or regions beside the messages."""
        if body.model is not None:
            _check_model(body.model, names)
        options = chat_options(body, limits)
        with hearing() as heard:
            owner = visit_of(request).owner
            asked, scene = await service.work(request, lambda _: _opened(service, body, owner, heard))
        prepared, warned = await service.prepared(request, scene, [asked.wish], options)
        warnings = list(dict.fromkeys([*asked.warnings, *heard, *warned]))
        stream = bool(body.stream)
        making = service.desk.submit(prepared.asked, streamed=stream)
        told = _Telling(visit_of(request), model, prepared, warnings)
        if stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            return EventStream(_chunks(service, told, making, usage=usage), close=making.close)
        answers = await service.finished(request, making)
        return JSONResponse(told.completion(answers[0]))

    return router


def _opened(service: Service, body: ChatCompletion, owner: str, heard: list[str]) -> tuple[Asked, Scene]:
    """The conversation and its picture, which later requests about it find open."""
    asked = read_messages(body)
    check_picture(asked.picture, service.limits, GarImageError, "image_url")
    kept = service.scenes.of_content(asked.picture, owner, warnings=heard)
    heard[:] = kept.warnings
    return asked, kept.scene


def _check_model(name: str, served: set[str]) -> None:
    if name not in served:
        found = " or ".join(sorted(served))
        raise ApiError(
            404, f"the model {name[:60]!r} is not served here, but {found}", param="model", code="model_not_found"
        )


class _Telling:
    """An answer in OpenAI's form."""

    def __init__(self, visit: Visit, model: str, prepared: Prepared, warnings: Sequence[str]) -> None:
        self.visit = visit
        self._prepared = prepared
        self._warnings = list(warnings)
        self._head = {"id": f"chatcmpl-{visit.id}", "created": int(time.time()), "model": model}

    def completion(self, answer: Answer) -> dict[str, Any]:
        """The whole."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": _logprobs(answer),
            "finish_reason": _reason(answer),
        }
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(answer),
            "gar": self._gar(answer),
        }

    def chunk(self, delta: dict[str, Any], answer: Answer | None = None) -> dict[str, Any]:
        """A piece of a stream; with the answer, the one that ends it."""
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": None if answer is None else _logprobs(answer),
            "finish_reason": None if answer is None else _reason(answer),
        }
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return chunk if answer is None else {**chunk, "gar": self._gar(answer)}

    def usage(self, answer: Answer) -> dict[str, Any]:
        """The chunk that tells tokens alone."""
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(answer)}

    def _gar(self, answer: Answer) -> dict[str, Any]:
        told = self._prepared.to_json(0, answer)
        return {name: told[name] for name in told if name not in ("index", "text", "logprobs", "model")} | {
            "warnings": self._warnings
        }


async def _chunks(service: Service, told: _Telling, making: Making, *, usage: bool) -> AsyncIterator[bytes]:
    yield unnamed(told.chunk({"role": "assistant", "content": ""}))
    try:
        async for one in making.events():
            if isinstance(one, Said):
                yield unnamed(told.chunk({"content": one.text}))
                continue
            answer = service.noted(told.visit, one)
            yield unnamed(told.chunk({}, answer))
            if usage:
                yield unnamed(told.usage(answer))
    except Exception as error:
        fault = api_error_of(error)
        if fault.status >= 500:
            service.log.failed(told.visit.id, error)
        yield unnamed(fault.to_json())
        return
    yield unnamed("[DONE]")


def _reason(answer: Answer) -> str:
    """OpenAI knows two ways to end: `gar.finish_reason` has ours."""
    return "stop" if answer.finish_reason == "stop" else "length"


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": len(answer.tokens),
        "total_tokens": answer.prompt_tokens + len(answer.tokens),
        "prompt_tokens_details": {"cached_tokens": answer.reuse.tokens_reused},
    }


def _logprobs(answer: Answer) -> dict[str, Any] | None:
    if answer.logprobs is None:
        return None

    def one(token: TokenLogprob) -> dict[str, Any]:
        text = token.text
        return {"token": text, "logprob": token.logprob, "bytes": list(text.encode("utf-8", "replace"))}

    content = [{**one(token), "top_logprobs": [one(other) for other in token.likeliest]} for token in answer.logprobs]
    return {"content": content, "refusal": None}
