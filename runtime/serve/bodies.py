"""Bodies of our own API. They are its documentation: docs/openapi.json is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

_NUMBERS = {"type": "array", "items": {"type": "number"}}
_DATA_URL = {"type": "string", "pattern": "^data:image/(png|jpeg|webp);base64,"}
_BOX = {**_NUMBERS, "minItems": 4, "maxItems": 4, "description": "left, upper, right, lower"}
_POINTS = {"type": "array", "items": {**_NUMBERS, "minItems": 2, "maxItems": 2}}
REGION = {
    "type": "object",
    "description": "One region: whole numbers are pixels, numbers with a decimal point within 0.0 to 1.0 fractions of "
    "the sides.",
    "anyOf": [
        {"required": ["box"], "properties": {"box": _BOX, "as_mask": {"type": "boolean"}}},
        {"required": ["points"], "properties": {"points": _POINTS, "not_points": _POINTS, "box": _BOX}},
        {"required": ["polygons"], "properties": {"polygons": {"type": "array", "items": _NUMBERS}}},
        {
            "required": ["size", "counts"],
            "properties": {
                "size": {**_NUMBERS, "minItems": 2, "maxItems": 2, "description": "height, width"},
                "counts": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]},
            },
        },
        {"required": ["mask"], "properties": {"mask": _DATA_URL, "label": {"type": "integer"}}},
        {"required": ["scribble"], "properties": {"scribble": _DATA_URL}},
    ],
}
Regions = Annotated[
    Any,
    WithJsonSchema(
        {
            "description": "Regions by number, or a list, numbered from 0.",
            "anyOf": [
                {"type": "object", "additionalProperties": REGION},
                {"type": "array", "items": REGION},
            ],
        }
    ),
]
Text = Annotated[str, Field(min_length=1)]
Pair = Annotated[list[int], Field(min_length=2, max_length=2)]
Extent = Annotated[list[int], Field(min_length=4, max_length=4, description="left, upper, right, lower")]


class Strict(BaseModel):
    """What is not known is refused, rather than taken and ignored. What is null is not given."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, body: Any) -> Any:
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body


class HowToAnswer(Strict):
    """Options of an answer; at most one of schema, regex, grammar and one_of."""

    max_new_tokens: int | None = Field(None, ge=1, description="At most; the server has a limit of its own.")
    temperature: float = Field(0.0, ge=0, le=100)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, le=2**31)
    seed: int | None = Field(None, ge=0, lt=2**64)
    stop: Text | Annotated[list[Text], Field(max_length=16)] = []
    seconds: float | None = Field(None, gt=0, description="End the answer so long after the question was asked.")
    logprobs: int | None = Field(None, ge=0, le=20, description="How likely each token was, and so many likeliest.")
    structure: dict[str, Any] | None = Field(None, alias="schema", description="JSON Schema of the answer.")
    regex: Text | None = None
    grammar: Text | None = Field(None, description="Lark, in llguidance's dialect.")
    one_of: list[Text] = Field([], max_length=256, description="The answer is one of these, word for word.")
    speculate: int = Field(0, ge=0, le=64)
    live: bool = Field(False, description="Go before requests that wait and are not.")
    stream: bool = Field(False, description="Server-sent events: text, answer, error, warning, end.")


class Question(Strict):
    """A question that names its regions as `<Prompt0>`, `<Prompt1>`, …"""

    question: str
    regions: Regions


class Ask(HowToAnswer):
    """One question, or many, which are answered side by side."""

    question: str | None = None
    regions: Regions | None = None
    questions: list[Question] = Field([], max_length=1000)


class Describe(HowToAnswer):
    """Regions to be described, each for itself."""

    regions: Regions


class Choose(Strict):
    """Choices, of which the likeliest is taken."""

    question: str | None = Field(None, description="None: as the description of the one region.")
    regions: Regions
    choices: list[Text] = Field(min_length=2, max_length=256)
    normalise: Literal["length"] | None = None
    abstain_below: float = Field(0.0, ge=0, le=1)
    seconds: float | None = Field(None, gt=0)
    live: bool = False


class TurnBody(Strict):
    """A question of a conversation, and what was answered."""

    question: str | None = Field(None, description="None, of the first one alone: the description of the one region.")
    answer: str


class Converse(HowToAnswer):
    """The next question of a conversation. The first one, under turns or here, names every region."""

    regions: Regions
    turns: list[TurnBody] = Field([], max_length=200)
    question: str


class Outline(Strict):
    """Regions whose masks are wanted."""

    regions: Regions


class OpenScene(Strict):
    """A picture as a `data:` URL, where its bytes cannot be the body."""

    image: str
    max_tiles: int | None = Field(None, ge=1, le=1000)


class SceneInfo(BaseModel):
    """An open picture. grid: columns and rows of tiles; tiles: with the thumbnail."""

    id: str
    width: int
    height: int
    grid: Pair
    tiles: int
    expires_in: float
    warnings: list[str] = []


class AnswerInfo(BaseModel):
    """One answer; a choice has choices, margin and entropy besides. boxes: the regions' extents by number."""

    model_config = ConfigDict(extra="allow")
    index: int
    text: str
    value: Any = None
    tokens: list[int]
    finish_reason: Literal["stop", "length", "cancelled", "timeout"]
    prompt_tokens: int
    grid: Pair
    timings_ms: dict[str, float]
    reuse: dict[str, int]
    model: str
    boxes: dict[str, Extent]


class Answers(BaseModel):
    """Answers in the questions' order."""

    answers: list[AnswerInfo]
    warnings: list[str] = []


class OutlinedRegion(BaseModel):
    """mask: a PNG as a `data:` URL, 255 where the region is. area: in pixels."""

    box: Extent
    area: int
    mask: str


class Outlines(BaseModel):
    """Masks by the regions' numbers."""

    regions: dict[str, OutlinedRegion]
    warnings: list[str] = []


class ErrorInfo(BaseModel):
    """What is wrong, and with what."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """Every error has this form."""

    error: ErrorInfo
