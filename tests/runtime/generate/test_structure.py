"""Answers with a structure: against torch, the `regex` package's partial matches, and jsonschema."""

from __future__ import annotations

import json
from typing import Any, Literal

import jsonschema
import numpy as np
import pydantic
import pytest
import regex
import torch
from helpers.examples import COLOUR, MASK
from helpers.pictures import middle, noise
from helpers.reference_gar import Reference
from helpers.schemas import object_of

from gar_edge.runtime import Gar, GarPromptError, Options
from gar_edge.runtime.generate.guide import Matcher
from gar_edge.runtime.generate.side_by_side import answer_side_by_side
from gar_edge.runtime.generate.structure import Structure
from gar_edge.runtime.scene import Scene


class Patterns:
    """Which tokens may come next in a text that a pattern must match, worked out one by one."""

    def __init__(self, reference: Reference) -> None:
        tokenizer, checkpoint = reference.tokenizer, reference.checkpoint
        special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self.texts = {
            id: tokenizer.decode([id])
            for id in range(tokenizer.get_vocab_size())
            if id not in special and tokenizer.id_to_token(id) is not None
        }
        self.stops = list(checkpoint.stop_tokens)

    def allowed(self, pattern: str, said: str) -> list[int]:
        ids = [id for id, text in self.texts.items() if text and regex.fullmatch(pattern, said + text, partial=True)]
        return ids + (self.stops if regex.fullmatch(pattern, said) else [])


@pytest.mark.parametrize("pattern", [r"[a-z]{3,9}", r"[0-9]+(\.[0-9]{2})?", r"(x|yz|[A-F])*", r"[ -`{-~]{4}"])
def test_greedy_answers_equal_torchs_masked_argmax(gar: Gar, by_the_book: Reference, pattern: str) -> None:
    patterns, most = Patterns(by_the_book), 10
    for seed in range(3):
        image = noise(seed)
        found = gar.open(image, max_tiles=1).describe(
            middle(image), number=1, options=Options(regex=pattern, max_new_tokens=most, logprobs=0)
        )
        with torch.inference_mode():
            embeds, _ = by_the_book.embedded(image, {1: middle(image)}, None, 1)
            said: list[int] = []
            logprobs: list[float] = []
            while len(said) < most:
                behind = by_the_book.logprobs(embeds, said)[-1]
                allowed = patterns.allowed(pattern, by_the_book.tokenizer.decode(said))
                if set(allowed) == set(patterns.stops):
                    break  # nothing but the end may follow
                best = allowed[int(behind[allowed].argmax())]
                said.append(best)
                logprobs.append(float(behind[best]))
                if best in patterns.stops:
                    break
        assert list(found.tokens) == said
        assert found.logprobs is not None
        np.testing.assert_allclose([one.logprob for one in found.logprobs], logprobs, atol=1e-3)
        if found.finish_reason == "stop":
            assert regex.fullmatch(pattern, found.text)
            assert found.value == found.text
        else:
            assert (found.value, len(found.tokens)) == (None, most)


def test_a_structure_that_allows_everything_changes_nothing(nano: Gar) -> None:
    """Answers of twenty questions, token by token; alone, guessing ahead, and beside each other."""
    for number in (1, 2):
        scene = nano.open(f"examples/scene_{number}.png")
        masks = [f"examples/scene_{number}_mask_{k}.png" for k in range(3)]
        for mask in masks:
            free = scene.describe(mask)
            for options in (Options(regex=r"(.|\n)*"), Options(grammar=r"start: /(.|\n)*/", speculate=8)):
                held = scene.describe(mask, options=options)
                assert held.tokens == free.tokens
                assert held.value == held.text == free.text
        free_all = [answer.tokens for answer in scene.describe_all(masks)]
        assert [a.tokens for a in scene.describe_all(masks, options=Options(regex=r"(.|\n)*"))] == free_all


def test_a_schema_gives_its_object(scene: Scene) -> None:
    colours = ["red", "pink", "green"]
    schema = object_of(colour={"enum": colours}, sure={"type": "boolean"}, sides={"type": "integer", "maximum": 9})
    answer = scene.ask(COLOUR, MASK, options=Options(schema=schema))
    assert answer.finish_reason == "stop"
    jsonschema.validate(answer.value, schema)
    assert list(answer.value) == ["colour", "sure", "sides"]
    assert json.loads(answer.text) == answer.value
    assert json.loads(json.dumps(answer.to_json()))["value"] == answer.value
    # What the schema leaves no choice about goes through the engine together, not token by token.
    assert answer.reuse.guesses_true == answer.reuse.tokens_guessed > 10


def test_a_pydantic_model_gives_its_instance(scene: Scene) -> None:
    class Thing(pydantic.BaseModel):
        colour: Literal["red", "pink"]
        large: bool

    answer = scene.ask(COLOUR, MASK, options=Options(schema=Thing))
    assert isinstance(answer.value, Thing)
    assert answer.to_json()["value"] == answer.value.model_dump()

    class Never(Thing):
        @pydantic.field_validator("colour")
        @classmethod
        def refuse(cls, value: str) -> str:
            raise ValueError("no colour is good enough")

    refused = scene.ask(COLOUR, MASK, options=Options(schema=Never))
    assert (refused.value, refused.finish_reason) == (None, "stop")
    assert json.loads(refused.text)["colour"] in ("red", "pink")


def test_a_models_own_code_runs_in_its_callers_thread(scene: Scene) -> None:
    """Where it fails, it fails for that caller; where it asks the same engine, it is answered."""

    class Asking(pydantic.BaseModel):
        colour: Literal["red", "pink"]

        @pydantic.field_validator("colour")
        @classmethod
        def ask_again(cls, value: str) -> str:
            return scene.choose(COLOUR, MASK, ["red", "pink"]).best or value

    class Failing(Asking):
        @pydantic.field_validator("colour")
        @classmethod
        def ask_again(cls, value: str) -> str:
            raise KeyError("its own fault")

    beside = scene.stream(None, {1: "examples/scene_1_mask_1.png"}, options=Options(regex="[a-z ]{150}"))
    with pytest.raises(KeyError, match="its own fault"):
        scene.ask(COLOUR, MASK, options=Options(schema=Failing))
    assert beside.finish().finish_reason == "stop"
    assert scene.ask(COLOUR, MASK, options=Options(schema=Asking)).value.colour == "pink"


@pytest.mark.parametrize(
    "options",
    [{"choices": ("pink", "red"), "stop": ("k",)}, {"regex": "pink( toy)?", "stop": ("nk",)},
     {"schema": {"const": 12}, "stop": ("2",)}],
)  # fmt: skip
def test_what_a_stop_text_cuts_has_no_value(scene: Scene, options: dict[str, Any]) -> None:
    answer = scene.ask(COLOUR, MASK, options=Options(**options))
    assert answer.text in ("pi", "pin", "1")
    assert (answer.value, answer.finish_reason) == (None, "stop")


def test_one_whose_structure_fails_on_the_way_takes_no_others_with_it(
    scene: Scene, nano: Gar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side its error is raised, or told to whoever wants the others."""
    take = Matcher.take

    def give_up(self: Matcher, token: int) -> None:
        take(self, token)
        raise GarPromptError("given up")

    monkeypatch.setattr(Matcher, "take", give_up)
    asked = [scene.prepare(COLOUR, MASK, options=options) for options in (Options(), Options(regex="a+"), Options())]
    told: dict[int, str] = {}
    answers = dict(
        answer_side_by_side(nano.scheduler, asked, refused=lambda number, error: told.update({number: str(error)}))
    )
    assert told == {1: "given up"}
    assert {number: answer.text for number, answer in answers.items()} == {0: "pink", 2: "pink"}
    with pytest.raises(GarPromptError, match="given up"):
        dict(answer_side_by_side(nano.scheduler, asked))


@pytest.mark.parametrize(
    "choice", ["pink", 'with "quotes"', "back\\slash", "new\nline", "Äpfel 😀", "/regex/", "{1}[2]"]
)
def test_choices_are_said_as_they_are(scene: Scene, choice: str) -> None:
    answer = scene.ask(COLOUR, MASK, options=Options(choices=(choice, choice + choice)))
    assert answer.value == answer.text
    assert answer.text in (choice, choice + choice)


def test_a_grammar_in_lark(scene: Scene) -> None:
    grammar = 'start: size " " colour\nsize: "small" | "large"\ncolour: "pink" | "red"\n'
    answer = scene.ask(COLOUR, MASK, options=Options(grammar=grammar))
    assert answer.value == answer.text
    assert answer.text in {f"{size} {colour}" for size in ("small", "large") for colour in ("pink", "red")}


def test_draws_keep_to_the_structure(scene: Scene) -> None:
    texts = {
        scene.ask(COLOUR, MASK, options=Options(regex="[a-c]{2}", temperature=1.5, seed=seed)).text
        for seed in range(20)
    }
    assert len(texts) > 1
    assert all(regex.fullmatch("[a-c]{2}", text) for text in texts)


def test_an_answer_that_is_cut_off_has_no_value(scene: Scene) -> None:
    schema = object_of(colour={"type": "string", "minLength": 40})
    answer = scene.ask(COLOUR, MASK, options=Options(schema=schema, max_new_tokens=12))
    assert (answer.finish_reason, answer.value) == ("length", None)
    assert answer.text.startswith('{"colour": "')
    # A number could end here, and yet more of it could come.
    digits = scene.ask(COLOUR, MASK, options=Options(regex="[0-9]{2,}", max_new_tokens=4))
    if digits.finish_reason == "length":
        assert digits.value is None


def test_an_answer_that_just_fits_is_whole(scene: Scene) -> None:
    choices = ("a very large star", "neither this nor that")
    whole = scene.ask(COLOUR, MASK, options=Options(choices=choices))
    assert (whole.finish_reason, whole.value in choices) == ("stop", True)
    fits = scene.ask(COLOUR, MASK, options=Options(choices=choices, max_new_tokens=len(whole.tokens)))
    assert (fits.tokens, fits.finish_reason, fits.value) == (whole.tokens, "stop", whole.value)


def test_a_number_that_no_float_holds_is_no_value() -> None:
    structure = Structure.of(schema={"type": "number"}, regex=None, choices=(), grammar=None)
    assert structure is not None
    assert structure.read("1e300") == 1e300
    with pytest.raises(ValueError, match="no finite number"):
        structure.read("1e999")


@pytest.mark.parametrize(
    "options",
    [Options(schema=object_of(colour={"enum": ["red", "reddish"]}, n={"type": "integer"}, s={"type": "string"})),
     Options(regex="[a-z ]{2,30}(x|yz)?"), Options(choices=("rose", "red", "red apple"))],
)  # fmt: skip
def test_one_token_is_allowed_as_the_mask_of_all_says(nano: Gar, options: Options) -> None:
    """In every state of a random walk, asked for one by one and by `look`."""
    assert options.structure is not None
    matcher, rng = nano.pipeline.guide.matcher(options.structure), np.random.default_rng(0)
    for _ in range(60):
        walked = matcher.copy()
        walked.take(first := int(rng.choice(allowed(matcher, nano))))
        matcher.take(first)
        walked._mask = None  # as behind every token
        one_by_one = [token for token in range(nano.manifest.dimensions.vocab) if walked.allows(token)]
        if matcher.over:
            break
        assert one_by_one == allowed(matcher, nano)


def allowed(matcher: Matcher, gar: Gar) -> list[int]:
    """All tokens that the mask lets through."""
    finite = np.isfinite(matcher.narrow(np.zeros(gar.manifest.dimensions.vocab, np.float32)))
    return np.flatnonzero(finite).tolist()
