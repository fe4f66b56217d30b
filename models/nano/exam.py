"""Questions with known answers about freshly drawn scenes, for evaluation. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gar_edge.models.nano import regions, tasks, wording
from gar_edge.models.nano.scenes import Mask, Scene, draw_scene
from gar_edge.models.nano.tasks import Asked, Turn
from gar_edge.models.nano.truth import Truth

CHOICES = 2  # multiple-choice questions a scene
OPPOSITE = {
    "left": "right",
    "above": "below",
    "larger": "smaller",
    wording.ORDINALS[0]: wording.ORDINALS[1],
}
OPPOSITE |= {after: before for before, after in OPPOSITE.items()}


@dataclass(frozen=True)
class Question:
    """One question: its regions' masks by prompt number, and for a pair the answer after swapping the two masks."""

    scene: Scene
    turn: Turn
    masks: dict[int, Mask]
    swapped: str | None = None

    def swap(self) -> dict[int, Mask]:
        """The masks the other way round."""
        return dict(zip(self.masks, reversed(self.masks.values()), strict=True))


def scene(seed: int, index: int) -> list[Question]:
    """All questions about one scene; scene `index` is the same for the same seed."""
    rng = np.random.default_rng((seed, index))
    while True:
        questions = list(_about(rng, Truth(draw_scene(rng))))
        if questions:
            return questions


def _about(rng: np.random.Generator, truth: Truth) -> Iterator[Question]:
    one = regions.one_region(rng, truth)
    if one is not None:
        turns = [tasks.default_description(one)]
        turns += [tasks.attribute_turn(rng, one, name) for name in tasks.ONE_REGION]
        names = [tasks.ONE_REGION[i] for i in rng.permutation(len(tasks.ONE_REGION))[:CHOICES]]
        turns += [tasks.choice_turn(rng, one, name) for name in names]
        yield from (_question(one, turn) for turn in turns if turn is not None)
    for count in (2, 3):
        several = regions.several_regions(rng, truth, count)
        if several is not None:
            chosen: dict[str, Turn] = {}
            for turn in tasks.group_turns(rng, several):
                chosen.setdefault(turn.task, turn)
            yield from (_question(several, turn) for turn in chosen.values())


def _question(asked: Asked, turn: Turn) -> Question:
    scene = asked.truth.scene
    masks = {number: scene.masks[thing] for number, thing in asked.regions}
    swapped = OPPOSITE.get(turn.answer) if len(masks) == 2 else None
    return Question(scene, turn, masks, swapped)
