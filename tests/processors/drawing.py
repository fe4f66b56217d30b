"""Questions about gar-nano's drawn scenes, as files that any processor can read."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from gar_edge.models.nano import exam

SEED = 23  # not an evaluation's


def draw_questions(folder: Path, count: int) -> None:
    """The first `count` questions of the exam with this seed: pictures and masks as PNG, and `questions.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    asked: list[dict[str, object]] = []
    index = 0
    while len(asked) < count:
        questions = exam.scene(SEED, index)[: count - len(asked)]
        picture = f"{index}.png"
        Image.fromarray(questions[0].scene.image).save(folder / picture)
        for number, question in enumerate(questions):
            masks = {}
            for region, mask in question.masks.items():
                masks[str(region)] = f"{index}-{number}-{region}.png"
                Image.fromarray(mask).save(folder / masks[str(region)])
            asked.append({"picture": picture, "question": question.turn.question, "masks": masks})
        index += 1
    (folder / "questions.json").write_text(json.dumps(asked), encoding="utf-8")
