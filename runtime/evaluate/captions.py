"""DLC-Bench and Ferret-Bench: descriptions of single regions, which judges mark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.evaluate.task import Item, Task
from gar_edge.runtime.files.fields import Field, Text, read_json
from gar_edge.runtime.jobs.job import make_job


def _described(place: int, field: Field, image: str, region: dict[str, Any], *, entry: Any, id: str) -> Item:
    """A region to be described in the released default's words."""
    asked = {"id": id, "image": image, "regions": [region]}
    return Item(make_job(place, Field(field.source, asked, field.where, GarPromptError)), image, "caption", None, entry)


def _placed(folder: Path, name: str) -> str:
    """Where a picture is that the data name without its folder: beside them, or in `images`."""
    return name if (folder / name).is_file() or not (folder / "images").is_dir() else f"images/{name}"


def _read_dlc(folder: Path) -> list[Item]:
    """`annotations.json`, COCO's form with run lengths, one region an annotation."""
    coco = read_json(folder / "annotations.json", GarPromptError)
    pictures = {one["id"].to(int): one["file_name"].to(Text) for one in coco["images"].items()}
    items = []
    for place, field in enumerate(coco["annotations"].items()):
        image = pictures.get(field["image_id"].to(int))
        if image is None:
            raise field["image_id"].wrong("the id of one of its images")
        id = str(field["id"].to(int))
        region = field["segmentation"].value
        items.append(_described(place, field, _placed(folder, image), region, entry=id, id=id))
    return items


def _pack_dlc(items: Sequence[Item], answers: Sequence[str | None]) -> Any:
    return {item.entry: answer for item, answer in zip(items, answers, strict=True) if answer is not None}


def _unpack_dlc(items: Sequence[Item], packed: Any) -> list[str | None]:
    if not isinstance(packed, dict):
        raise GarPromptError("the answers must be an object of descriptions by annotation, as the released one writes")
    texts = {id: entry.get("pred") if isinstance(entry, dict) else entry for id, entry in packed.items()}
    texts = {id: text for id, text in texts.items() if not id.startswith("avg_")}
    known = {item.entry for item in items}
    if foreign := sorted(texts.keys() - known):
        raise GarPromptError(f"{foreign[0]} is no annotation of this task")
    if wrong := [id for id, text in texts.items() if not isinstance(text, str)]:
        raise GarPromptError(f"{wrong[0]} has no description")
    return [texts.get(item.entry) for item in items]


def _read_ferret(folder: Path) -> list[Item]:
    """`box_refer_caption.json`: boxes with their outlines."""
    items = []
    for place, field in enumerate(read_json(folder / "box_refer_caption.json", GarPromptError).items()):
        image, outlines = field["image"].to(Text), field["annotation"]["segmentation"].to(list[list[float]])
        region = {"polygons": outlines}
        id = str(field["question_id"].to(int))
        items.append(_described(place, field, _placed(folder, image), region, entry=field.value, id=id))
    return items


def _pack_ferret(items: Sequence[Item], answers: Sequence[str | None]) -> Any:
    return [
        {"image_path": item.image, "annotation": item.entry["annotation"], "caption": answer}
        for item, answer in zip(items, answers, strict=True)
        if answer is not None
    ]


def _unpack_ferret(items: Sequence[Item], packed: Any) -> list[str | None]:
    if not isinstance(packed, list) or not all(isinstance(entry, dict) for entry in packed):
        raise GarPromptError("the answers must be a list of captions, as the released evaluation writes")
    known = {_place(item.image, item.entry["annotation"]): index for index, item in enumerate(items)}
    answers: list[str | None] = [None] * len(items)
    for place, entry in enumerate(packed):
        index = known.get(_place(str(entry.get("image_path")), entry.get("annotation")))
        if index is None:
            raise GarPromptError(f"[{place}] is no region of this task ({entry.get('image_path')})")
        if not isinstance(entry.get("caption"), str):
            raise GarPromptError(f"[{place}] has no caption")
        if answers[index] is not None:
            raise GarPromptError(f"[{place}] answers a question twice ({entry.get('image_path')})")
        answers[index] = entry["caption"]
    return answers


def _place(image: str, annotation: Any) -> str:
    """The released file runs its folder and the picture's name together: their last 16 characters are the name."""
    return repr((image[-16:], annotation))


DLC = Task(
    "dlc-bench",
    "DLC-Bench's 100 regions to describe, marked by a judge",
    _read_dlc,
    _pack_dlc,
    _unpack_dlc,
    {"1b": 0.679},
)
FERRET = Task(
    "ferret-bench",
    "Ferret-Bench's 40 regions to describe, marked by a judge",
    _read_ferret,
    _pack_ferret,
    _unpack_ferret,
    {"1b": 56.0},
)
