"""gar-nano's tokenizer: a byte-level BPE learnt from its own wording, with the released special tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from gar_edge.models.nano import wording
from gar_edge.models.nano.tasks import VALUES

FIXED = (wording.SYSTEM, "There are some objects I am curious about")
"""Texts that stand in every prompt: kept whole, so that each becomes a single token."""

LLAMA_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus() -> Iterator[str]:
    """Everything gar-nano says or is asked, and the words around it."""
    yield from [wording.SYSTEM, wording.DESCRIBE, "system\n\n", "user\n\n", "assistant\n\n"]
    yield "There are some objects I am curious about: ;\n ; \n: \n: \n\n"
    for phrasings in (*wording.ATTRIBUTES.values(), *wording.RELATIONS.values(), wording.DESCRIPTIONS):
        yield from (phrasing.replace("{0}", "").replace("{1}", "") for phrasing in phrasings)
    words = [word for values in VALUES.values() for word in values]
    yield from words
    yield from wording.ORDINALS
    yield from wording.LETTERS
    yield from ("left", "right", "above", "below", "larger", "smaller", "yes", "no")
    for phrasing in wording.WHICH:
        yield phrasing.format(what="", list=", or")
        yield from (phrasing.format(what=what, list="") for what in (*wording.EXTREMES, *words))
    for phrasing in wording.CHOICE:
        yield phrasing.format(question="?", options="\n".join(f"{letter}. red" for letter in wording.LETTERS))
    yield from (f"A. {word}\nB. {word}" for word in words)
    facts = dict.fromkeys(("size", "fill", "colour", "shape", "place", "near_colour", "near_shape"), "red")
    yield wording.description(facts)
    for word in words:
        yield f" {word} at an {word}, a {word}. An {word} A {word}"


def build(special_tokens: list[str], first_special: int) -> Tokenizer:
    """A tokenizer with exactly `first_special` ordinary tokens and the special ones after them."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex("|".join([*map(re.escape, FIXED), LLAMA_SPLIT])), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=first_special,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    if tokenizer.get_vocab_size() != first_special:
        raise ValueError(f"the wording gives {tokenizer.get_vocab_size()} ordinary tokens, not {first_special}")
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special_tokens])
    return tokenizer


def load(checkpoint: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder."""
    return Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
