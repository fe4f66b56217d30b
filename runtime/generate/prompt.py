"""Questions about regions to token ids, in the released model's wording."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gar_edge.runtime.bundle.manifest import Prompt
from gar_edge.runtime.errors import GarPromptError
from gar_edge.runtime.generate.choosing import MOST_TOKENS

_NUMBER = re.compile(r"\d+")
_REGION = re.compile(r"<Prompt\d+>")
_RUN = re.compile(r"\0(\d+)\0")


@dataclass(frozen=True)
class NamedRegion:
    """What the formats see of a region: its name `<PromptK>` and the text of its replay token."""

    name: str
    replay: str


@dataclass(frozen=True)
class Turn:
    """How a conversation went on: the answer to the question before, and the next question."""

    answer: str
    question: str


class _Wording:
    """The two formats of a user's turn; `GarPromptError` for formats that are none."""

    def __init__(self, environment: ImmutableSandboxedEnvironment, describe: str, ask: str) -> None:
        try:
            self._describe = environment.from_string(describe)
            self._ask = environment.from_string(ask)
        except jinja2.TemplateError as error:
            raise _no_format(error) from None

    def render(self, regions: Sequence[NamedRegion], question: str | None) -> str:
        """The turn's text; without a question the only region is described."""
        try:
            if question is None:
                return self._describe.render(region=regions[0])
            return self._ask.render(regions=regions, question=question)
        except jinja2.TemplateError as error:
            raise _no_format(error) from None


def _no_format(error: jinja2.TemplateError) -> GarPromptError:
    return GarPromptError(f"a format of the bundle's prompt cannot be used ({error}); correct it in gar.json")


class PromptBuilder:
    """Renders, tokenises and expands prompts; one per loaded bundle."""

    def __init__(self, spec: Prompt, tile_tokens: int, tokenizer: Tokenizer, chat_template: str) -> None:
        # The environment in which transformers renders chat templates.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise
        try:
            self._chat = environment.from_string(chat_template)
        except jinja2.TemplateError as error:
            raise GarPromptError(f"the chat template cannot be used: {error}") from None
        plain = ImmutableSandboxedEnvironment(keep_trailing_newline=True)
        self._picture = _Wording(plain, spec.describe_format, spec.ask_format)
        self._clip = _Wording(plain, spec.clip.describe_format, spec.clip.ask_format)
        self._spec = spec
        self._tile_tokens = tile_tokens
        self._tokenizer = tokenizer
        self._special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}

    def check(self, question: str | None, numbers: Sequence[int], turns: Sequence[Turn] = ()) -> None:
        """Raise `GarPromptError` unless the question names exactly the given regions, one to five of them.

        turns: what followed it, whose questions may name those.
        """
        for turn in turns:
            self.check_words(turn.question, numbers)
            self.check_said(turn.answer, numbers)
        known = self._spec.regions
        if not numbers:
            raise GarPromptError("no region given: mark at least one with a mask, a box or points")
        if len(numbers) > len(known):
            raise GarPromptError(
                f"{len(numbers)} regions given, the model takes at most {len(known)} in one prompt; choose among them, "
                "with gar-run by FILE#N or --interactive"
            )
        for number in numbers:
            if not 0 <= number < len(known):
                raise GarPromptError(f"region {number} does not exist; they are numbered 0 to {len(known) - 1}")
        if question is None:
            if len(numbers) != 1:
                raise GarPromptError(f"{len(numbers)} regions need a question that names them, e.g. 'Is {known[0]} …?'")
            return
        if not question.strip():
            raise GarPromptError("the question is empty; leave it out to have the region described")
        self.check_words(question, numbers)
        unnamed = {known[number] for number in numbers} - set(_REGION.findall(question))
        if unnamed:
            raise GarPromptError(f"the question does not name {_list(unnamed)}; name every region that has a mask")

    def check_words(self, text: str, numbers: Sequence[int], *, what: str = "the question") -> None:
        """Raise `GarPromptError` for a text that is empty, names a region that is not given, or reserved words."""
        if not text.strip():
            raise GarPromptError(f"{what} is empty")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise GarPromptError(f"{what} holds bytes or half characters that are no text; correct them") from None
        known = self._spec.regions
        foreign = set(_REGION.findall(text)) - {known[number] for number in numbers}
        if foreign:
            raise GarPromptError(f"{what} names {_list(foreign)}, for which no mask was given")
        for reserved in sorted(self._special - set(known)):
            if reserved in text:
                raise GarPromptError(f"{what} contains {reserved}, which the model reserves; remove it")

    def _next(self, places: int) -> NamedRegion:
        """So many regions behind the last that the model knows; `GarPromptError` where it has no token for it."""
        name, replay = (
            _NUMBER.sub(lambda found: str(int(found[0]) + places), texts[-1])
            for texts in (self._spec.regions, self._spec.replay_texts)
        )
        if self._tokenizer.token_to_id(replay) is None:
            raise GarPromptError(f"the model has no token {replay}, by which {name} would be listed")
        return NamedRegion(name, replay)

    def check_said(self, answer: str, numbers: Sequence[int]) -> None:
        """Raise `GarPromptError` where an answer spells what is reserved: the next prompt would take it at its word.

        numbers: of the conversation's regions, which it may name.
        """
        for reserved in sorted(self._special - {self._spec.regions[number] for number in numbers}):
            if reserved in answer:
                raise GarPromptError(
                    f"the answer before contains {reserved}, which the model reserves; begin another conversation"
                )

    def answer(self, text: str, numbers: Sequence[int]) -> tuple[int, ...]:
        """Token ids of a text as an answer, without the end; `GarPromptError` for one that is none."""
        self.check_words(text, numbers, what=f"the choice {text!r}")
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) > MOST_TOKENS:
            raise GarPromptError(f"a choice has {len(ids)} tokens; at most {MOST_TOKENS} are taken")
        if self._tokenizer.decode(ids, skip_special_tokens=False) != text:
            raise GarPromptError(f"the model's tokenizer has no tokens for the choice {text!r}")
        return tuple(ids)

    def build(
        self,
        question: str | None,
        numbers: Sequence[int],
        tiles: int,
        turns: Sequence[Turn] = (),
        *,
        beyond: int = 0,
    ) -> NDArray[np.int64]:
        """Token ids [S] for `tiles` tiles (the thumbnail counted), image and replay tokens repeated per feature.

        Regions are listed in the order of `numbers`. turns: what followed the first question, which alone introduces
        picture and regions. Questions are such as `check` and `check_words` let through. beyond: how many regions are
        listed behind those that the model knows, by the next names and reserved tokens, which nothing stands for.
        """
        regions = [NamedRegion(self._spec.regions[k], self._spec.replay_texts[k]) for k in numbers]
        unseen = [self._next(place + 1) for place in range(beyond)]
        regions += unseen
        listed = [self._tokenizer.token_to_id(region.replay) for region in unseen]
        replayed = [*self._spec.replay_tokens, *filter(None, listed)]
        return self._ids(self._picture.render(regions, question), tiles, replayed, turns)

    def build_clip(
        self, question: str | None, shown: Mapping[int, Sequence[int]], frames: int
    ) -> tuple[NDArray[np.int64], list[tuple[int, int, int]]]:
        """Token ids [S] for a clip of so many frames, a tile each, and where features of regions go.

        shown: the frames that show each region, by its number, in the prompt's order. The second result has for each
        run of a replay token the region's number, the frame, and the first of its places in the ids.
        """
        spec, texts = self._spec.clip, self._spec.clip.frame_texts
        runs = [(number, frame) for number, seen in shown.items() for frame in seen]
        # Rendered with marks first, for the format alone says in which order the runs come.
        marked = [
            NamedRegion(
                self._spec.regions[number],
                "".join(f"\0{run}\0" for run, (owner, _) in enumerate(runs) if owner == number),
            )
            for number in shown
        ]
        order = [int(found) for found in _RUN.findall(self._clip.render(marked, question))]
        regions = [
            NamedRegion(self._spec.regions[number], "".join(texts[min(frame, len(texts) - 1)] for frame in seen))
            for number, seen in shown.items()
        ]
        ids = self._ids(self._clip.render(regions, question), frames, spec.frame_tokens, ())
        begins = np.flatnonzero(np.isin(ids, spec.frame_tokens))[:: self._tile_tokens]
        if len(begins) != len(order) or sorted(order) != list(range(len(runs))):
            raise GarPromptError("the bundle's prompt.clip must write each region's replay tokens once; correct it")
        return ids, [(*runs[run], int(begin)) for run, begin in zip(order, begins, strict=True)]

    def _ids(self, text: str, tiles: int, replayed: Sequence[int], turns: Sequence[Turn]) -> NDArray[np.int64]:
        """A conversation that begins with this text about so many tiles; `replayed`: tokens of regions' features."""
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
        ]
        for turn in turns:
            messages += [_say("assistant", turn.answer), _say("user", turn.question)]
        try:
            chat = self._chat.render(messages=messages, add_generation_prompt=True, bos_token=self._spec.begin_text)
        except jinja2.TemplateError as error:
            raise GarPromptError(f"the chat template failed: {error}") from None
        ids = np.asarray(self._tokenizer.encode(chat, add_special_tokens=False).ids, np.int64)
        repeats = np.ones_like(ids)
        repeats[ids == self._spec.image_token] = tiles * self._tile_tokens
        repeats[np.isin(ids, replayed)] = self._tile_tokens
        return np.repeat(ids, repeats)


def _say(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _list(names: set[str]) -> str:
    return " and ".join(sorted(names))
