"""OpenAI's API by OpenAI's own client: the answers are those of the model itself."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from helpers.serving import EXAMPLES, Running, data_url, mask

from gar_edge.runtime import Gar, Options, Scene
from gar_edge.runtime.generate.prompt import Turn
from gar_edge.runtime.generate.side_by_side import answer_side_by_side

MODEL = "gar-nano"
COLOUR = "What colour is <Prompt0>?"
LARGER = "Is <Prompt0> larger or smaller than <Prompt1>?"


@pytest.fixture(scope="module")
def client(server: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none is needed", max_retries=0)


def image(picture: str = "scene_1") -> dict[str, Any]:
    return picture_part(data_url(EXAMPLES / f"{picture}.png"))


def region(number: int, picture: str = "scene_1", **given: Any) -> dict[str, Any]:
    return {"type": "region", "id": number, **(given or mask(picture, number))}


def picture_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def picture_at(url: str) -> Any:
    """A region of a picture at an address."""
    return user(picture_part(url), region(0))


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> Any:
    return {"role": "user", "content": list(parts)}


def test_a_question_has_the_models_own_answer(client: openai.OpenAI, scene: Scene, masks: dict[int, Path]) -> None:
    direct = scene.ask(LARGER, {0: masks[0], 1: masks[1]})
    done = client.chat.completions.create(model=MODEL, messages=[user(image(), region(0), region(1), text(LARGER))])
    assert done.choices[0].message.content == direct.text
    assert done.gar["tokens"] == list(direct.tokens)  # type: ignore[attr-defined]
    assert done.choices[0].finish_reason == "stop"
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (direct.prompt_tokens, len(direct.tokens))
    assert done.usage.total_tokens == direct.prompt_tokens + len(direct.tokens)


def test_a_region_without_words_is_described(client: openai.OpenAI, scene: Scene, masks: dict[int, Path]) -> None:
    done = client.chat.completions.create(model=MODEL, messages=[user(image(), region(0))])
    assert done.choices[0].message.content == scene.describe(masks[0]).text
    assert done.gar["warnings"] == []  # type: ignore[attr-defined]


def test_words_that_name_no_region_describe_the_single_one_and_say_so(
    client: openai.OpenAI, scene: Scene, masks: dict[int, Path]
) -> None:
    done = client.chat.completions.create(model=MODEL, messages=[user(image(), region(0), text("What is this?"))])
    assert done.choices[0].message.content == scene.describe(masks[0]).text
    assert "names no region" in done.gar["warnings"][0]  # type: ignore[attr-defined]


def test_regions_may_stand_beside_the_messages(client: openai.OpenAI, scene: Scene, masks: dict[int, Path]) -> None:
    done = client.chat.completions.create(
        model=MODEL,
        messages=[user(image(), text("What colour is <Prompt2>?"))],
        extra_body={"regions": {"2": mask("scene_1", 2)}},
    )
    assert done.choices[0].message.content == scene.ask("What colour is <Prompt2>?", {2: masks[2]}).text


def test_parts_without_ids_take_the_numbers_that_are_free(
    client: openai.OpenAI, scene: Scene, masks: dict[int, Path]
) -> None:
    parts = [{"type": "region", **mask("scene_1", 0)}, region(0, **mask("scene_1", 1))]
    done = client.chat.completions.create(model=MODEL, messages=[user(image(), *parts, text(LARGER))])
    assert done.choices[0].message.content == scene.ask(LARGER, {1: masks[0], 0: masks[1]}).text


def test_a_stream_says_the_same_and_ends_with_the_usage(
    client: openai.OpenAI, scene: Scene, masks: dict[int, Path]
) -> None:
    direct = scene.describe(masks[1])
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[user(image(), region(0, **mask("scene_1", 1)))],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == direct.text
    assert len([piece for piece in pieces if piece]) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(direct.tokens)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1


def test_many_at_once_by_the_async_client(server: Running, direct: Gar) -> None:
    """Each answer is that of its own picture and region."""
    kinds = [("scene_1", number) for number in range(5)] + [("scene_2", number) for number in range(3)]

    async def ask_all() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client:

            async def ask(picture: str, number: int) -> str | None:
                done = await client.chat.completions.create(
                    model=MODEL, messages=[user(image(picture), region(0, **mask(picture, number)), text(COLOUR))]
                )
                return done.choices[0].message.content

            return await asyncio.gather(*(ask(*kind) for kind in kinds * 3))

    scenes = {name: direct.open(EXAMPLES / f"{name}.png") for name in ("scene_1", "scene_2")}
    right = [scenes[name].ask(COLOUR, {0: EXAMPLES / f"{name}_mask_{number}.png"}).text for name, number in kinds]
    assert asyncio.run(ask_all()) == right * 3


def test_several_turns_go_on_where_the_first_began(client: openai.OpenAI, scene: Scene, masks: dict[int, Path]) -> None:
    chat = scene.chat({0: masks[0], 1: masks[1]})
    first, second = chat.ask(LARGER), chat.ask("What colour is <Prompt1>?")
    messages = [user(image(), region(0), region(1), text(LARGER))]
    one = client.chat.completions.create(model=MODEL, messages=messages)
    messages += [{"role": "assistant", "content": one.choices[0].message.content}]
    messages += [{"role": "user", "content": "What colour is <Prompt1>?"}]
    two = client.chat.completions.create(model=MODEL, messages=messages)
    assert [one.choices[0].message.content, two.choices[0].message.content] == [first.text, second.text]
    assert two.gar["tokens"] == list(second.tokens)  # type: ignore[attr-defined]
    assert two.usage is not None
    assert two.usage.prompt_tokens_details is not None
    assert (two.usage.prompt_tokens_details.cached_tokens or 0) > one.usage.prompt_tokens - 2  # type: ignore[union-attr]


def test_options_are_the_models(client: openai.OpenAI, scene: Scene, masks: dict[int, Path]) -> None:
    messages = [user(image(), region(0))]
    short = client.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.gar["tokens"] == list(  # type: ignore[attr-defined]
        scene.describe(masks[0], options=Options(max_new_tokens=3)).tokens
    )
    stopped = client.chat.completions.create(model=MODEL, messages=messages, stop=[" at"])
    assert stopped.choices[0].message.content == scene.describe(masks[0], options=Options(stop=(" at",))).text
    drawn = client.chat.completions.create(model=MODEL, messages=messages, temperature=1.5, top_p=0.9, seed=7)
    options = Options(temperature=1.5, top_p=0.9, seed=7)
    assert drawn.choices[0].message.content == scene.describe(masks[0], options=options).text


def test_logprobs_in_openais_form(client: openai.OpenAI, scene: Scene, masks: dict[int, Path]) -> None:
    direct = scene.ask(COLOUR, {0: masks[0]}, options=Options(logprobs=3)).logprobs
    assert direct is not None
    messages = [user(image(), region(0), text(COLOUR))]
    done = client.chat.completions.create(model=MODEL, messages=messages, logprobs=True, top_logprobs=3)
    assert done.choices[0].logprobs is not None
    content = done.choices[0].logprobs.content
    assert content is not None
    assert [one.logprob for one in content] == pytest.approx([one.logprob for one in direct], abs=1e-4)
    assert [other.token for one in content for other in one.top_logprobs] == [
        other.text for one in direct for other in one.likeliest
    ]
    assert bytes(content[0].bytes or []).decode() == direct[0].text
    streamed = list(
        client.chat.completions.create(model=MODEL, messages=messages, logprobs=True, top_logprobs=3, stream=True)
    )
    told = [
        one for chunk in streamed for one in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert [one.token for one in told] == [one.token for one in content]


def test_an_answer_of_a_schema(client: openai.OpenAI, scene: Scene, masks: dict[int, Path]) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "cyan"]}, "large": {"type": "boolean"}},
        "required": ["colour", "large"],
        "additionalProperties": False,
    }
    done = client.chat.completions.create(
        model=MODEL,
        messages=[user(image(), region(0), text(COLOUR))],
        response_format={"type": "json_schema", "json_schema": {"name": "seen", "schema": schema, "strict": True}},
    )
    direct = scene.ask(COLOUR, {0: masks[0]}, options=Options(schema=schema))
    assert json.loads(done.choices[0].message.content or "") == direct.value == done.gar["value"]  # type: ignore[attr-defined]
    one_of = client.chat.completions.create(
        model=MODEL, messages=[user(image(), region(0), text(COLOUR))], extra_body={"one_of": ["red", "green"]}
    )
    assert one_of.choices[0].message.content in ("red", "green")


def test_models(client: openai.OpenAI) -> None:
    (only,) = client.models.list().data
    assert client.models.retrieve(only.id).id == client.models.retrieve(MODEL).id == only.id
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"model": "gpt-9"}, "not served here"),
        ({"messages": [{"role": "user", "content": "What is this?"}]}, "no picture"),
        ({"messages": [picture_at("http://10.0.0.1/a.png")]}, "data: URL"),
        ({"messages": [picture_at("file:///etc/passwd")]}, "data: URL"),
        ({"messages": [picture_at("data:image/png;base64,####")]}, "base64"),
        ({"messages": [picture_at("data:image/png;base64,aGFsbG8=")]}, "not a picture"),
        ({"messages": [user(image(), text(COLOUR))]}, "no region"),
        ({"messages": [user(image(), region(0, mask="/etc/passwd"), text(COLOUR))]}, "data: URL"),
        ({"messages": [user(image(), region(0, scribble="http://10.0.0.1/a.png"), text(COLOUR))]}, "data: URL"),
        ({"messages": [user(image(), region(0, box=[5, 5, 5, 9]), text(COLOUR))]}, "box"),
        ({"messages": [user(image(), region(0, box=[900, 5, 990, 9]), text(COLOUR))]}, "outside"),
        ({"messages": [user(image(), region(0), region(0), text(COLOUR))]}, "twice"),
        ({"messages": [user(image(), region(9, box=[5, 5, 60, 60]), text("What is <Prompt9>?"))]}, "does not exist"),
        ({"messages": [user(image(), region(0), text("Is <Prompt0> left of <Prompt1>?"))]}, "no mask was given"),
        ({"messages": [user(image(), image(), region(0))]}, "one picture"),
        ({"messages": [{"role": "system", "content": "Be brief."}, user(image(), region(0))]}, "system"),
        ({"messages": [{"role": "assistant", "content": "Hello."}, user(image(), region(0))]}, "first and the last"),
        ({"messages": [user(image(), region(0)), {"role": "assistant", "content": "A moon."}]}, "first and the last"),
        ({"messages": [user(image(), region(0), text(COLOUR + "x" * 5000))]}, "5025 characters"),
        ({"messages": [user({"type": "image_url", "image_url": "data:image/png;base64,"})]}, "messages.0.content.0"),
        ({"messages": []}, "messages"),
        ({"n": 2}, "n:"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_logprobs": 2}, "logprobs: true"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"not": {}}}}}, "not"),
        ({"extra_body": {"surprise": 1}}, "surprise"),
        ({"extra_body": {"regions": [{"box": [1, 1, 9, 9]}]}}, "one of both"),
        ({"extra_body": {"seconds": -1}}, "seconds"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_an_error_of_the_client(
    client: openai.OpenAI, change: dict[str, Any], what: str
) -> None:
    given: dict[str, Any] = {"model": MODEL, "messages": [user(image(), region(0), text(COLOUR))]}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as raised:
        client.chat.completions.create(**given | change)
    body = raised.value.body
    assert isinstance(body, dict)
    assert what in f"{body['param']}: {body['message']}"
    assert body["type"] == "invalid_request_error"
    assert "Traceback" not in body["message"]


def test_what_changes_no_answer_is_taken(client: openai.OpenAI, scene: Scene, masks: dict[int, Path]) -> None:
    """Empty and neutral settings, hints for other servers, nulls, and what is about the account."""
    picture = image()
    picture["image_url"]["detail"] = "original"
    words = text(COLOUR) | {"cache_control": {"type": "ephemeral"}}
    done = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": ""}, user(picture, region(0), words)],  # type: ignore[list-item]
        n=1, frequency_penalty=0, presence_penalty=0, logit_bias={}, user="robot", max_tokens=5, tools=[], top_p=0,
        seed=-1, stop="", modalities=["text"], reasoning_effort="none", prompt_cache_key="k", service_tier="flex",
        store=True, logprobs=False, top_logprobs=0, function_call="none", metadata={"run": "7"},
        extra_body={"audio": None, "prediction": None},
    )  # fmt: skip
    assert done.choices[0].message.content == scene.ask(COLOUR, {0: masks[0]}).text


def test_neighbouring_messages_of_one_role_are_one(client: openai.OpenAI, scene: Scene, masks: dict[int, Path]) -> None:
    messages = [user(image(), region(0)), user(text(COLOUR))]
    done = client.chat.completions.create(model=MODEL, messages=messages)
    assert done.choices[0].message.content == scene.ask(COLOUR, {0: masks[0]}).text


def test_base64_in_lines_is_read(client: openai.OpenAI) -> None:
    lines = "data:image/png;base64," + base64.encodebytes((EXAMPLES / "scene_1.png").read_bytes()).decode()
    done = client.chat.completions.create(model=MODEL, messages=[user(picture_part(lines), region(0), text(COLOUR))])
    assert done.choices[0].message.content == "pink"


def test_a_described_region_keeps_its_number(client: openai.OpenAI, scene: Scene, masks: dict[int, Path]) -> None:
    """As the client gave it, in the answer and in questions that follow."""
    first = user(image(), region(0))
    one = client.chat.completions.create(model=MODEL, messages=[first])
    assert list(one.gar["boxes"]) == ["0"]  # type: ignore[attr-defined]
    said = {"role": "assistant", "content": one.choices[0].message.content}
    two = client.chat.completions.create(model=MODEL, messages=[first, said, user(text(COLOUR))])  # type: ignore[list-item]
    turns = [Turn(one.choices[0].message.content or "", COLOUR)]
    direct = scene.prepare(None, {0: masks[0]}, turns=turns)
    ((_, answer),) = answer_side_by_side(scene._scheduler, [direct])
    assert two.choices[0].message.content == answer.text
