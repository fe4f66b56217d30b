"""Small benchmarks in the released form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

SIZE = (60, 80)  # height and width of the pictures


def runs(place: int) -> dict[str, Any]:
    """Run lengths of a rectangle, a different one for each place."""
    mask = np.zeros(SIZE, np.uint8)
    mask[5 + place % 20 : 40, 10 : 30 + place % 40] = 1
    encoded = coco.encode(np.asfortranarray(mask))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def picture(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (*SIZE, 3), np.uint8)).save(folder / name)


def multiple_choice(folder: Path, count: int, *, regions: int = 2) -> list[dict[str, Any]]:
    """GAR-Bench-VQA.json with pictures; every answer is A. Returns its entries."""
    names = [f"<Prompt{number}>" for number in range(regions)]
    entries = [
        {
            "mask_rles": [runs(place + 3 * number) for number in range(regions)],
            "question": f"Which is red, {' or '.join(names)}?",
            "choices": [f"{letter}. {name}" for letter, name in zip("ABCDEFGHI", names, strict=False)],
            "answer": "A",
            "type": "color" if place % 2 else "shape",
            "image": f"images/vqa_{place}.png",
        }
        for place in range(count)
    ]
    for entry in entries:
        picture(folder, entry["image"])
    (folder / "GAR-Bench-VQA.json").write_text(json.dumps(entries))
    return entries


def captions(folder: Path, count: int) -> list[dict[str, Any]]:
    """GAR-Bench-Caption-Simple.json with pictures. Returns its entries."""
    entries = [
        {
            "mask_rles": [runs(place), runs(place + 7)],
            "question": "How is <Prompt1> related to <Prompt0>?",
            "answer": "It is beside it.",
            "image": f"images/caption_{place}.png",
        }
        for place in range(count)
    ]
    for entry in entries:
        picture(folder, entry["image"])
    (folder / "GAR-Bench-Caption-Simple.json").write_text(json.dumps(entries))
    return entries
