"""OpenAI's messages to what is asked about which picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gar_edge.runtime.errors import GarImageError, GarMaskError, GarPromptError
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.serve.limits import Limits
from gar_edge.runtime.serve.openai_bodies import ChatCompletion, ImagePart, Message, RegionPart, TextPart
from gar_edge.runtime.serve.pictures import from_url
from gar_edge.runtime.serve.questions import Wish
from gar_edge.runtime.serve.turns import conversation

_LEAST = 1e-6  # top_p of 0 takes the likeliest token alone
_NAME = re.compile(r"<Prompt\d+>")


@dataclass(frozen=True)
class Asked:
    """picture: the file's bytes. warnings: of how the messages were read."""

    picture: bytes
    wish: Wish
    warnings: list[str]


def read_messages(body: ChatCompletion) -> Asked:
    """What the messages ask; `GarError` where they are no conversation about one picture."""
    messages = [
        message for message in body.messages if _words(_parts(message)) or message.role not in ("system", "developer")
    ]
    if any(message.role in ("system", "developer") for message in messages):
        raise GarPromptError("this model knows no system messages: its training had none; say it in the question")
    if not messages or messages[0].role != "user" or messages[-1].role != "user":
        raise GarPromptError("the first and the last message must be the user's: the last one's question is answered")
    parts = _turns(messages)
    picture = _picture(parts)
    regions = _regions(parts, body.regions)
    texts = [_words(listed) for listed in parts]
    warnings: list[str] = []
    first = _first(texts[0], regions, warnings)
    if len(parts) == 1:
        return Asked(picture, Wish(first, regions), warnings)
    asked = [first, *texts[2::2]]
    if any(not (text or "").strip() for text in asked[1:]):
        raise GarPromptError("a message of the user is empty; only the first may be, to have its region described")
    turns = list(zip(asked[:-1], texts[1::2], strict=True))
    return Asked(picture, conversation(turns, texts[-1], regions), warnings)


def chat_options(body: ChatCompletion, limits: Limits) -> Options:
    """Options of the answer, within the server's limits."""
    if body.top_logprobs and not body.logprobs:
        raise GarPromptError("top_logprobs go with logprobs: true")
    tokens = body.max_completion_tokens or body.max_tokens or limits.tokens
    stop = [text for text in ([body.stop] if isinstance(body.stop, str) else body.stop or ()) if text]
    if len(stop) > 16:
        raise GarPromptError(f"{len(stop)} stop texts; at most 16 are taken")
    return Options(
        max_new_tokens=min(tokens, limits.tokens),
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else max(body.top_p, _LEAST),
        seed=None if body.seed is None else body.seed % 2**64,
        stop=tuple(stop),
        seconds=min(body.seconds or limits.seconds, limits.seconds),
        schema=_schema(body),
        regex=body.regex,
        grammar=body.grammar,
        choices=tuple(body.one_of or ()),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )


def _schema(body: ChatCompletion) -> dict[str, Any] | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.json_schema is None:
        raise GarPromptError('response_format of type "json_schema" needs json_schema: {"name": …, "schema": …}')
    return wanted.json_schema.structure


def _parts(message: Message) -> list[TextPart | ImagePart | RegionPart]:
    if isinstance(message.content, list):
        return message.content
    return [TextPart(type="text", text=message.content)] if message.content else []


def _turns(messages: Sequence[Message]) -> list[list[TextPart | ImagePart | RegionPart]]:
    """Parts by turn, the user's and the assistant's by turns: neighbouring messages of one role are one."""
    turns: list[list[TextPart | ImagePart | RegionPart]] = []
    role = None
    for message in messages:
        if message.role != role:
            turns.append([])
        turns[-1] += _parts(message)
        role = message.role
    return turns


def _words(parts: Sequence[object]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def _picture(parts: Sequence[Sequence[object]]) -> bytes:
    found = [part for listed in parts for part in listed if isinstance(part, ImagePart)]
    if not found:
        raise GarImageError("no picture: the first message needs an image_url with a data: URL")
    if len(found) > 1 or found[0] not in parts[0]:
        raise GarImageError("one picture a conversation, in its first message; begin another for another picture")
    return from_url(found[0].image_url.url, GarImageError, "image_url")


def _regions(parts: Sequence[Sequence[object]], given: Any) -> Any:
    """The regions of parts, or those that the body gives."""
    found = [part for part in parts[0] if isinstance(part, RegionPart)]
    if any(isinstance(part, RegionPart) for listed in parts[1:] for part in listed):
        raise GarMaskError("regions stand in the first message; begin another conversation about others")
    if found and given is not None:
        raise GarMaskError("regions are given as parts and under regions; one of both")
    if not found:
        return given
    taken = {part.id for part in found}
    free = (number for number in range(len(found) + len(taken) + 1) if number not in taken)
    regions: dict[str, Any] = {}
    for part in found:
        number = str(next(free) if part.id is None else part.id)
        if number in regions:
            raise GarMaskError(f"region {number} is given twice")
        regions[number] = dict(part.model_extra or {})
    return regions


def _name(regions: Any) -> str:
    return f"<Prompt{next(iter(regions)) if isinstance(regions, dict) else 0}>"


def _first(text: str, regions: Any, warnings: list[str]) -> str | None:
    """The first question; None to describe the single region, where the words name none."""
    if not text.strip():
        return None
    single = isinstance(regions, (dict, list)) and len(regions) == 1
    if single and not _NAME.search(text):
        warnings.append(
            f"the question names no region, so the region is described, whatever it asks; name it as {_name(regions)}"
        )
        return None
    return text
