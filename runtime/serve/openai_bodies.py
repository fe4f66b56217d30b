"""Bodies of `/v1/chat/completions`: OpenAI's, with regions.

What this model cannot do is refused by name rather than taken and ignored; settings that change nothing at their
neutral value are taken at that value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gar_edge.runtime.serve.bodies import Regions, Strict, Text


class Lenient(BaseModel):
    """Hints for other servers beside what is read, as for caching, change no answer."""

    model_config = ConfigDict(extra="ignore")


class TextPart(Lenient):
    """Words of a question."""

    type: Literal["text"]
    text: str


class ImageUrl(Lenient):
    """A picture as a `data:` URL; no address is fetched."""

    url: str


class ImagePart(Lenient):
    """The picture of a conversation."""

    type: Literal["image_url"]
    image_url: ImageUrl


class RegionPart(BaseModel):
    """A region, in one of the forms of `Region` beside its id; without an id it gets the lowest that is free."""

    model_config = ConfigDict(extra="allow")
    type: Literal["region"]
    id: int | None = Field(None, ge=0, le=999)


Part = Annotated[TextPart | ImagePart | RegionPart, Field(discriminator="type")]


class Message(Lenient):
    """One turn. content: text, or parts; the picture and its regions stand in the first message of the user."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None


class JsonSchema(Strict):
    """A named schema."""

    name: str = "answer"
    description: str | None = None
    structure: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """What an answer must be like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Strict):
    """include_usage: a last chunk without choices tells the tokens."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatCompletion(Strict):
    """OpenAI's request. regions: all regions at once, where a client cannot send parts of its own (`extra_body`)."""

    model: str | None = None
    messages: list[Message] = Field(min_length=1, max_length=400)
    regions: Regions | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1, description="The older name of max_completion_tokens.")
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    regex: Text | None = Field(None, description="Ours: the answer matches it.")
    grammar: Text | None = Field(None, description="Ours: the answer is a sentence of it.")
    one_of: list[Text] | None = Field(None, max_length=256, description="Ours: the answer is one of these.")
    seconds: float | None = Field(None, gt=0, description="Ours: end the answer after so long.")
    # Taken at the value that changes nothing.
    n: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    tools: list[Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    functions: list[Any] | None = Field(None, max_length=0)
    function_call: Literal["none", "auto"] | None = None
    modalities: list[Literal["text"]] | None = None
    reasoning_effort: Literal["none"] | None = None
    # About the account or the service, not the answer.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    parallel_tool_calls: bool | None = None


class Usage(BaseModel):
    """Tokens. cached_tokens: of the prompt, taken over from earlier answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]


class CompletionChoice(BaseModel):
    """The answer; there is one."""

    index: int
    message: dict[str, Any]
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """OpenAI's response. gar: the answer as our own API tells it, and warnings."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    gar: dict[str, Any]


class ModelInfo(BaseModel):
    """The model that is served. gar: its regions' names, and the server's limits."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    gar: dict[str, Any]


class ModelList(BaseModel):
    """All models: one."""

    object: Literal["list"]
    data: list[ModelInfo]
