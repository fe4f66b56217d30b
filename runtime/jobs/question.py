"""What a job asks, with its choices in the wording of the released benchmark, and what its answer must be like."""

from __future__ import annotations

import re
import string
from dataclasses import replace
from typing import Annotated, Any, Literal

import msgspec

from gar_edge.runtime.files.fields import Field, Text
from gar_edge.runtime.generate.choosing import Choosing
from gar_edge.runtime.generate.options import Options

_LETTERED = re.compile(r"\(?([A-Z])[.):]\s*\S")


class _Checks(msgspec.Struct, frozen=True):
    """What a job says of its answer; see `read_options`."""

    choose: bool | list[Text] = False
    abstain_below: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    normalise: Literal["length"] | None = None
    schema: dict[str, Any] | None = None
    regex: Text | None = None
    grammar: Text | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0)] | None = None


def read_question(job: Field) -> str | None:
    """The text to ask, or None where the region is to be described; an error of the field's kind for what is neither.

    choices: a list of texts, whose letters are put before them where they have none, or an object of texts by letter.
    The wording is that of GAR-Bench's questions (gar_vqa.py of the released repository).
    """
    question, choices = job["question"], job["choices"]
    if choices.value in (None, [], {}):
        return None if question.value in (None, "") else question.to(Text)
    if question.value in (None, ""):
        raise question.wrong("a text, to go with the choices")
    lines = "\n".join(_lettered(choices))
    return f"Question: {question.to(Text)}\nOptions:\n{lines}\nAnswer with the correct option's letter directly."


def read_options(job: Field, options: Options) -> Options:
    """The options of all jobs, with what this one says of its answer; an error of the field's kind for what cannot be.

    choose: texts to choose from by probability, or true for the letters of `choices`; abstain_below and normalise go
    with it. schema, regex, grammar: the answer's structure, instead of any that all jobs have. logprobs: how many
    likeliest tokens in the place of each.
    """
    checks = job.to(_Checks)
    if checks.logprobs is not None:
        options = replace(options, logprobs=checks.logprobs)
    if checks.choose is False and (checks.abstain_below or checks.normalise):
        raise job["choose"].wrong("given, for abstain_below and normalise go with it")
    if checks.choose is False and checks.schema is None and not checks.regex and not checks.grammar:
        return options
    choosing = None
    if checks.choose is not False:
        choices = _letters(job["choices"]) if checks.choose is True else checks.choose
        choosing = Choosing(choices, checks.normalise, checks.abstain_below)
    return replace(
        options, choosing=choosing, schema=checks.schema, regex=checks.regex, choices=(), grammar=checks.grammar
    )


def _letters(choices: Field) -> list[str]:
    if isinstance(choices.value, dict):
        return list(choices.value)
    return list(string.ascii_uppercase[: len(_lettered(choices))])


def _lettered(choices: Field) -> list[str]:
    if isinstance(choices.value, dict):
        return [f"{letter}. {choices[letter].to(Text).strip()}" for letter in choices.value]
    texts = [choice.to(Text).strip() for choice in choices.items()]
    letters = string.ascii_uppercase[: len(texts)]
    found = [match[1] if (match := _LETTERED.match(text)) else "" for text in texts]
    if found == list(letters):
        return texts
    if len(texts) > len(string.ascii_uppercase):
        raise choices.wrong(f"a list of at most {len(string.ascii_uppercase)}")
    return [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
