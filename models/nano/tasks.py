"""Questions with their answers, drawn for given regions of a scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from gar_edge.models.nano import wording
from gar_edge.models.nano.truth import Truth
from gar_edge.models.nano.vocabulary import COLOURS, FILLS, PLACES, SHAPES, SIZES

Rng = np.random.Generator

VALUES: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "fill": FILLS,
    "size": SIZES,
    "place": tuple(place for row in PLACES for place in row),
}
ONE_REGION = tuple(VALUES)
TWO_REGIONS = (*wording.RELATIONS, "which", "extreme")


@dataclass(frozen=True)
class Turn:
    """One question about regions and its true answer. `question` None asks for the default description.

    `word`: what the answering letter of a multiple choice stands for; `chosen`: prompt number of the region that a
    "which" asks for.
    """

    task: str
    question: str | None
    answer: str
    word: str | None = None
    chosen: int | None = None


@dataclass(frozen=True)
class Asked:
    """The regions that a prompt gives: prompt number -> index of the thing, in ascending order of the numbers."""

    truth: Truth
    regions: tuple[tuple[int, int], ...]

    @property
    def names(self) -> list[str]:
        return [wording.prompt(number) for number, _ in self.regions]

    @property
    def things(self) -> list[int]:
        return [thing for _, thing in self.regions]


def attribute(truth: Truth, thing: int, name: str) -> str | None:
    """The word for one attribute of a thing; None where it is not clear."""
    if name == "place":
        return truth.place(thing)
    return str(getattr(truth.thing(thing), name))


def describable(truth: Truth, thing: int) -> dict[str, str] | None:
    """Everything a description states; None where a part of it is not clear."""
    place, near = truth.place(thing), neighbour(truth, thing)
    if place is None or near is None:
        return None
    it = truth.thing(thing)
    return {"size": it.size, "fill": it.fill, "colour": it.colour, "shape": it.shape, "place": place, **near}


def neighbour(truth: Truth, thing: int) -> dict[str, str] | None:
    """What a description states of the nearest other thing; None where it is not clear which one that is."""
    near = truth.neighbour(thing)
    if near is None:
        return None
    other = truth.thing(near)
    return {"near_colour": other.colour, "near_shape": other.shape}


def default_description(asked: Asked) -> Turn | None:
    """The released default prompt: describe the one region given."""
    facts = describable(asked.truth, asked.things[0])
    return Turn("describe", None, wording.description(facts)) if facts else None


def asked_description(rng: Rng, asked: Asked) -> Turn | None:
    """A description that a question asks for."""
    turn = default_description(asked)
    return replace(turn, question=_pick(rng, wording.DESCRIPTIONS).format(*asked.names)) if turn else None


def attribute_turn(rng: Rng, asked: Asked, name: str) -> Turn | None:
    """A question about one attribute of one region."""
    answer = attribute(asked.truth, asked.things[0], name)
    if answer is None:
        return None
    return Turn(name, _pick(rng, wording.ATTRIBUTES[name]).format(*asked.names), answer)


def choice_turn(rng: Rng, asked: Asked, name: str) -> Turn | None:
    """A question about one attribute with three or four lettered answers."""
    turn = attribute_turn(rng, asked, name)
    if turn is None or turn.question is None:
        return None
    others = [value for value in VALUES[name] if value != turn.answer]
    count = min(int(rng.integers(3, 5)), len(VALUES[name]))
    options = [turn.answer, *(others[i] for i in rng.permutation(len(others))[: count - 1])]
    options = [options[i] for i in rng.permutation(count)]
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip(wording.LETTERS, options, strict=False))
    question = _pick(rng, wording.CHOICE).format(question=turn.question, options=lines)
    return Turn("choice", question, wording.LETTERS[options.index(turn.answer)], turn.answer)


def lookup_turn(rng: Rng) -> Turn:
    """Letters alone, for the decoder's first lessons: which letter stands before a word, or which word behind it."""
    name = _pick(rng, ONE_REGION)
    count = min(int(rng.integers(3, 5)), len(VALUES[name]))
    options = [VALUES[name][i] for i in rng.permutation(len(VALUES[name]))[:count]]
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip(wording.LETTERS, options, strict=False))
    index = int(rng.integers(count))
    letter = wording.LETTERS[index]
    if rng.random() < 0.5:
        return Turn("lookup", f"{lines}\nWhich letter is {options[index]}?", letter, options[index])
    return Turn("lookup", f"{lines}\nWhat is {letter}?", options[index])


def binding_turns(rng: Rng, asked: Asked) -> Iterator[Turn]:
    """Attributes of one of several regions: a lesson in telling them apart. Questions to the shipped model name all."""
    for name in VALUES:
        index = int(rng.integers(len(asked.regions)))
        one = replace(asked, regions=asked.regions[index : index + 1])
        turn = attribute_turn(rng, one, name)
        if turn is not None:
            yield replace(turn, task=f"one_of_{len(asked.regions)}")


def relation_turn(rng: Rng, asked: Asked, task: str) -> Turn | None:
    """A question about how the first of two regions, in either order, relates to the second."""
    order = [int(i) for i in rng.permutation(2)]
    first, second = (asked.things[i] for i in order)
    answer = _RELATION[task](asked.truth, first, second)
    if answer is None:
        return None
    return Turn(task, _pick(rng, wording.RELATIONS[task]).format(*(asked.names[i] for i in order)), answer)


def which_turn(rng: Rng, asked: Asked) -> Turn | None:
    """Which of two or three regions has a colour, shape, fill or size that only one of them has."""
    name = _pick(rng, ("colour", "shape", "fill", "size"))
    values = [attribute(asked.truth, thing, name) for thing in asked.things]
    unique = [i for i, value in enumerate(values) if values.count(value) == 1]
    if not unique:
        return None
    index = unique[int(rng.integers(len(unique)))]
    value = str(values[index])
    return _which(rng, asked, "which", wording.article(value) if name == "shape" else value, index)


def extreme_turn(rng: Rng, asked: Asked) -> Turn | None:
    """Which of two or three regions lies furthest to one side, or is the largest or smallest."""
    kind = int(rng.integers(len(wording.EXTREMES)))
    for index, thing in enumerate(asked.things):
        others = [other for other in asked.things if other != thing]
        if all(_beyond(asked.truth, kind, thing, other) for other in others):
            return _which(rng, asked, "extreme", wording.EXTREMES[kind], index)
    return None


def one_region_turns(rng: Rng, asked: Asked) -> Iterator[Turn]:
    """Every kind of question about one region, in random order, choices more often."""
    makers: list[Callable[[], Turn | None]] = [lambda name=name: attribute_turn(rng, asked, name) for name in VALUES]  # type: ignore[misc]
    makers += [lambda name=name: choice_turn(rng, asked, name) for name in VALUES]  # type: ignore[misc]
    return _shuffled(rng, makers)


def group_turns(rng: Rng, asked: Asked) -> Iterator[Turn]:
    """Every kind of question about two or three regions, in random order."""
    makers: list[Callable[[], Turn | None]] = [lambda: which_turn(rng, asked), lambda: extreme_turn(rng, asked)]
    if len(asked.regions) == 2:
        makers += [lambda task=task: relation_turn(rng, asked, task) for task in wording.RELATIONS]  # type: ignore[misc]
    else:
        makers *= 2
    return _shuffled(rng, makers)


def listing_turns(rng: Rng, asked: Asked) -> Iterator[Turn]:
    """More of what is learnt last: which of the regions is something."""
    return _shuffled(rng, [lambda: which_turn(rng, asked), *[lambda: extreme_turn(rng, asked)] * 2])


def nearest_turns(rng: Rng, asked: Asked) -> Iterator[Turn]:
    """What lies nearest to each of the regions: a lesson in what descriptions end with."""
    for name, thing in zip(asked.names, asked.things, strict=True):
        facts = neighbour(asked.truth, thing)
        if facts is not None:
            yield Turn("nearest", _pick(rng, wording.NEAREST).format(name), wording.neighbour(facts))


def _shuffled(rng: Rng, makers: list[Callable[[], Turn | None]]) -> Iterator[Turn]:
    for index in rng.permutation(len(makers)):
        turn = makers[int(index)]()
        if turn is not None:
            yield turn


def _which(rng: Rng, asked: Asked, task: str, what: str, index: int) -> Turn:
    question = _pick(rng, wording.WHICH).format(what=what, list=wording.listing(asked.names))
    return Turn(task, question, wording.ORDINALS[index], chosen=asked.regions[index][0])


def _beyond(truth: Truth, kind: int, thing: int, other: int) -> bool:
    if kind < 4:
        offset = truth.offset(thing, other, kind // 2)
        return offset is not None and (offset < 0) == (kind % 2 == 0)
    return truth.larger(thing, other) is (kind == 4)


def _direction(axis: int, before: str, after: str) -> Callable[[Truth, int, int], str | None]:
    def answer(truth: Truth, first: int, second: int) -> str | None:
        offset = truth.offset(first, second, axis)
        return None if offset is None else before if offset < 0 else after

    return answer


def _larger(truth: Truth, first: int, second: int) -> str | None:
    larger = truth.larger(first, second)
    return None if larger is None else "larger" if larger else "smaller"


def _same(name: str) -> Callable[[Truth, int, int], str | None]:
    def answer(truth: Truth, first: int, second: int) -> str | None:
        return _yes(attribute(truth, first, name) == attribute(truth, second, name))

    return answer


def _yes(value: bool) -> str:
    return "yes" if value else "no"


_RELATION: dict[str, Callable[[Truth, int, int], str | None]] = {
    "left_right": _direction(0, "left", "right"),
    "above_below": _direction(1, "above", "below"),
    "larger": _larger,
    "same_colour": _same("colour"),
    "same_shape": _same("shape"),
    "overlap": lambda truth, first, second: _yes(bool(truth.scene.overlaps[first, second])),
}


def _pick(rng: Rng, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
