"""GAR-Bench (Haochen-Wang409/Grasp-Any-Region): multiple-choice questions, and captions that a judge marks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.evaluate.task import Item, Task
from gar_edge.runtime.files.fields import Field, Text, read_json
from gar_edge.runtime.jobs.job import make_job

DETAILED = "Describe <Prompt0> in detail, including the relationship with <Prompt1>."  # of the released evaluation
OUTPUT = "model_output"  # where the released evaluation puts the answer


def _reader(file: str, *, question: str | None = None, kind: str | None = None) -> Any:
    """Reads the entries of a file; question: asked of all; kind: the field that groups them."""

    def read(folder: Path) -> list[Item]:
        entries = read_json(folder / file, GarPromptError)
        return [_item(place, field, question, kind) for place, field in enumerate(entries.items())]

    return read


def _item(place: int, field: Field, question: str | None, kind: str | None) -> Item:
    image = field["image"].to(Text)
    masks = list(field["mask_rles"].items())
    if not masks:
        raise field["mask_rles"].wrong("a list of one mask or more")
    asked = {"image": image, "question": question or field["question"].to(Text), "mask_rles": field["mask_rles"].value}
    if field["choices"].value is not None:
        asked["choices"] = field["choices"].value
    return Item(
        job=make_job(place, Field(field.source, asked, field.where, GarPromptError)),
        image=image,
        kind=field[kind].to(Text) if kind else "caption",
        truth=field["answer"].to(Text) if kind else None,
        entry=field.value,
        regions=len(masks),
    )


def pack(items: Sequence[Item], answers: Sequence[str | None]) -> Any:
    """The entries that have an answer, each with it."""
    return [{**item.entry, OUTPUT: answer} for item, answer in zip(items, answers, strict=True) if answer is not None]


def unpack(items: Sequence[Item], packed: Any) -> list[str | None]:
    """By picture and question; a file may lack some, and may have more in each entry, as the judge's has."""
    if not isinstance(packed, list) or not all(isinstance(entry, dict) for entry in packed):
        raise GarPromptError("the answers must be a list of objects, as the released evaluation writes")
    known = {_name(item.entry): index for index, item in enumerate(items)}
    answers: list[str | None] = [None] * len(items)
    for place, entry in enumerate(packed):
        index = known.get(_name(entry))
        if index is None:
            raise GarPromptError(f"[{place}] is no question of this task ({entry.get('image')})")
        if answers[index] is not None:
            raise GarPromptError(f"[{place}] answers a question twice ({entry.get('image')})")
        if not isinstance(entry.get(OUTPUT), str):
            raise GarPromptError(f"[{place}] has no {OUTPUT} ({entry.get('image')})")
        answers[index] = entry[OUTPUT]
    return answers


def _name(entry: dict[str, Any]) -> str:
    """What tells entries apart: their id, if they have one, and else the picture, the question and the regions."""
    fields = ("id", "image", "question", "choices", "choose", "mask_rles", "regions")
    return json.dumps([entry.get(field) for field in fields], sort_keys=True)


VQA = Task(
    "gar-bench-vqa",
    "GAR-Bench's 424 multiple-choice questions, marked word for word",
    _reader("GAR-Bench-VQA.json", kind="type"),
    pack,
    unpack,
    {"1b": 203 / 424},
    several=True,
)
SIMPLE = Task(
    "gar-bench-caption-simple",
    "GAR-Bench's 97 short captions, marked by a judge",
    _reader("GAR-Bench-Caption-Simple.json"),
    pack,
    unpack,
    {"1b": 0.557},
    several=True,
)
DETAILED_CAPTIONS = Task(
    "gar-bench-caption-detailed",
    "GAR-Bench's 107 long captions, marked by a judge",
    _reader("GAR-Bench-Caption-Detailed.json", question=DETAILED),
    pack,
    unpack,
    {"1b": 0.664},
    several=True,
)
