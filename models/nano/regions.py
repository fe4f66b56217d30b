"""Which regions of a scene a prompt gives, and under which prompt numbers."""

from __future__ import annotations

import numpy as np

from gar_edge.models.nano import tasks
from gar_edge.models.nano.tasks import Asked, Turn
from gar_edge.models.nano.truth import Truth

PROMPTS = 5
PAIRS = 0.6  # of lessons about several regions; the others are about three
DEFAULT_PROMPT = 1  # the released demos describe <Prompt1>


def one_region(rng: np.random.Generator, truth: Truth) -> Asked | None:
    """A region that can be asked about, rather one that can be described; mostly as `<Prompt1>`."""
    clear = list(truth.clear)
    if not clear:
        return None
    whole = [thing for thing in clear if tasks.describable(truth, thing)]
    pool = whole if whole and rng.random() < 0.8 else clear
    number = DEFAULT_PROMPT if rng.random() < 0.6 else int(rng.integers(PROMPTS))
    return Asked(truth, ((number, pool[int(rng.integers(len(pool)))]),))


def several_regions(rng: np.random.Generator, truth: Truth, count: int) -> Asked | None:
    """`count` regions; half the time under the first numbers. Overlapping and alike pairs are preferred at times."""
    clear = list(truth.clear)
    if len(clear) < count:
        return None
    things = [clear[i] for i in rng.permutation(len(clear))[:count]]
    wanted = rng.random()
    if wanted < 0.55:
        pairs = [(a, b) for a in clear for b in clear if a != b and _interesting(truth, a, b, wanted)]
        if pairs:
            pair = pairs[int(rng.integers(len(pairs)))]
            things = [*pair, *(thing for thing in things if thing not in pair)][:count]
            things = [things[i] for i in rng.permutation(count)]
    numbers = range(count) if rng.random() < 0.5 else sorted(rng.permutation(PROMPTS)[:count])
    return Asked(truth, tuple(zip((int(n) for n in numbers), things, strict=True)))


def ask(rng: np.random.Generator, truth: Truth, several: bool) -> tuple[Asked, list[Turn]] | None:
    """Regions of a scene, and every clear question about them in random order, the default description first."""
    if several:
        group = several_regions(rng, truth, 2 if rng.random() < PAIRS else 3)
        if group is None:
            return None
        turns = [*tasks.group_turns(rng, group), *tasks.listing_turns(rng, group), *tasks.binding_turns(rng, group)]
        turns += tasks.nearest_turns(rng, group)
        return group, [turns[i] for i in rng.permutation(len(turns))]
    asked = one_region(rng, truth)
    if asked is None:
        return None
    default = tasks.default_description(asked)
    turns = [*tasks.nearest_turns(rng, asked), *tasks.one_region_turns(rng, asked)]
    if default is None:
        return asked, turns
    if rng.random() < 0.15:
        spoken = tasks.asked_description(rng, asked)
        return asked, [spoken, *turns] if spoken else turns
    return asked, [default, *turns]


def _interesting(truth: Truth, a: int, b: int, wanted: float) -> bool:
    """Pairs that would be rare if left to chance: overlapping, of one colour, of one shape."""
    if wanted < 0.2:
        return bool(truth.scene.overlaps[a, b])
    first, second = truth.thing(a), truth.thing(b)
    return first.colour == second.colour if wanted < 0.375 else first.shape == second.shape
