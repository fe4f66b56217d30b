"""The phrasings of gar-nano's questions and the one form of its descriptions.

`{0}`, `{1}`, `{2}` stand for prompts such as `<Prompt1>`; other braces for words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
DESCRIBE = "Describe this masked region in detail."

LETTERS = "ABCD"
ORDINALS = ("the first", "the second", "the third")

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "colour": ("What colour is {0}?", "Which colour does {0} have?", "Name the colour of {0}."),
    "shape": ("What shape is {0}?", "Which shape does {0} have?", "Name the shape of {0}."),
    "fill": ("How is {0} filled?", "What fill does {0} have?", "Is {0} plain, striped, dotted or ringed?"),
    "size": ("How large is {0}?", "What size is {0}?", "Is {0} small, medium or large?"),
    "place": ("Where is {0} in the image?", "In which part of the image is {0}?", "Where does {0} lie?"),
}

DESCRIPTIONS = ("Describe {0}.", "Describe {0} in detail.", "What can you say about {0}?")

NEAREST = ("What is nearest to {0}?", "What lies next to {0}?", "Which thing is closest to {0}?")

RELATIONS: Mapping[str, tuple[str, ...]] = {
    "left_right": (
        "Is {0} to the left or to the right of {1}?",
        "Left or right: where is {0}, seen from {1}?",
        "On which side of {1} is {0}, left or right?",
    ),
    "above_below": (
        "Is {0} above or below {1}?",
        "Above or below: where is {0}, seen from {1}?",
        "Does {0} lie above or below {1}?",
    ),
    "larger": (
        "Is {0} larger or smaller than {1}?",
        "Larger or smaller: what is {0}, compared with {1}?",
        "Compared with {1}, is {0} larger or smaller?",
    ),
    "same_colour": (
        "Do {0} and {1} have the same colour?",
        "Are {0} and {1} of the same colour?",
        "Is the colour of {0} that of {1}?",
    ),
    "same_shape": (
        "Do {0} and {1} have the same shape?",
        "Are {0} and {1} of the same shape?",
        "Is the shape of {0} that of {1}?",
    ),
    "overlap": (
        "Do {0} and {1} overlap?",
        "Are {0} and {1} overlapping?",
        "Does one of {0} and {1} cover part of the other?",
    ),
}

WHICH = ("Which one is {what}: {list}?", "Which of these is {what}: {list}?", "Which is {what}, {list}?")
EXTREMES = ("furthest to the left", "furthest to the right", "highest up", "lowest down", "the largest", "the smallest")

CHOICE = ("{question}\n{options}\nAnswer with the letter.", "{question}\n{options}\nWhich letter is right?")

_DESCRIPTION = re.compile(
    r"^An? (?P<size>\w+) (?P<fill>\w+) (?P<colour>\w+) (?P<shape>\w+) at the (?P<place>[\w ]+) of the image, "
    r"nearest to an? (?P<near_colour>\w+) (?P<near_shape>\w+)\.$"
)


def prompt(region: int) -> str:
    """The name of a region in text."""
    return f"<Prompt{region}>"


def article(word: str) -> str:
    """`word` after its indefinite article."""
    return ("an " if word[0] in "aeiou" else "a ") + word


def description(facts: Mapping[str, str]) -> str:
    """A whole description, from the facts `parse_description` would find in it."""
    kind = article(f"{facts['size']} {facts['fill']} {facts['colour']} {facts['shape']}")
    return f"A{kind[1:]} at the {facts['place']} of the image, nearest to {neighbour(facts)}."


def neighbour(facts: Mapping[str, str]) -> str:
    """What lies nearest, from the same facts."""
    return article(f"{facts['near_colour']} {facts['near_shape']}")


def parse_description(text: str) -> dict[str, str]:
    """The facts that a description states; empty where it has another form."""
    match = _DESCRIPTION.match(text.strip())
    return match.groupdict() if match else {}


def listing(names: list[str]) -> str:
    """`a or b`, `a, b or c`."""
    return ", ".join(names[:-1]) + " or " + names[-1]
