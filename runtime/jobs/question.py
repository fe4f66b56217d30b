"""What a job asks: its question, with its choices in the wording of the released benchmark."""

from __future__ import annotations

import re
import string

from gar_edge.runtime.files.fields import Field, Text

_LETTERED = re.compile(r"\(?([A-Z])[.):]\s*\S")


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
