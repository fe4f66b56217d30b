"""gar-nano's exam as files: pictures, and questions with their answers as `gar-eval`'s task `regions` takes them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from gar_edge.models.nano import exam
from gar_edge.models.nano.exam import Question


def write_questions(out: Path, seed: int, scenes: Iterable[int], *, each: int | None = None) -> int:
    """Write the questions about the scenes of these numbers, and say how many there are.

    each: at most so many of a scene's, drawn; None: all.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    count = 0
    with (out / "questions.jsonl").open("w", encoding="utf-8") as file:
        for index in scenes:
            questions = exam.scene(seed, index)
            name = f"images/scene_{index}.png"
            Image.fromarray(questions[0].scene.image).save(out / name)
            drawn = np.random.default_rng((seed, index)).permutation(len(questions))[:each]
            for place in sorted(drawn.tolist()):
                file.write(json.dumps(_job(questions[place], name, f"{index}-{place}")) + "\n")
                count += 1
    return count


def _job(question: Question, image: str, id: str) -> dict[str, Any]:
    regions = {str(number): _runs(mask) for number, mask in sorted(question.masks.items())}
    turn = question.turn
    return {"id": id, "image": image, "question": turn.question, "type": turn.task, "answer": turn.answer,
            "regions": regions}  # fmt: skip


def _runs(mask: np.ndarray) -> dict[str, Any]:
    runs = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}
