"""Structures in conversations, streams, beside others and under limits; and what no answer may hold."""

from __future__ import annotations

import json
import sys

import pydantic
import pytest
from helpers.examples import COLOUR, MASK
from helpers.schemas import object_of
from helpers.slowed import slow

from gar_edge.runtime import AnswerStream, Gar, GarBackendError, GarPromptError, Options
from gar_edge.runtime.bundle.shipped import SHIPPED
from gar_edge.runtime.generate.guide import Matcher
from gar_edge.runtime.scene import Scene


def test_answers_never_hold_what_prompts_are_made_of(nano: Gar, scene: Scene) -> None:
    """Not inside strings, and not where a grammar asks for it: it would go into the next prompt of a conversation."""
    added = nano.pipeline.bundle.tokenizer.get_added_tokens_decoder()
    special = {id: token.content for id, token in added.items() if token.special}
    stops = set(nano.manifest.prompt.stop_tokens)
    for options in (Options(schema={"type": "string"}), Options(regex=r"(.|\n)*"), Options(grammar="start: /.+/")):
        assert options.structure is not None
        matcher = nano.pipeline.guide.matcher(options.structure)
        for character in '"<|image':  # one by one, until the token itself would fit
            assert not [text for id, text in special.items() if matcher.allows(id) and id not in stops]
            (token,) = nano.pipeline.bundle.tokenizer.encode(character).ids
            matcher.take(token)
    for grammar in ("start: <|image|>", 'start: "<|image|>" | "b"', "start: <[699]>", r"start: /<\|image\|>/"):
        with pytest.raises(GarPromptError, match="reserve"):
            scene.ask(COLOUR, MASK, options=Options(grammar=grammar))
    with pytest.raises(GarPromptError, match="reserves"):
        scene.ask(COLOUR, MASK, options=Options(schema=object_of(a={"const": "<|image|>"})))
    with pytest.raises(GarPromptError, match="reserves"):
        scene.ask(COLOUR, MASK, options=Options(choices=("<Prompt0>", "<Prompt1>")))


def test_a_conversation_does_not_go_on_from_what_spells_a_reserved_token(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = scene.chat(MASK)
    chat.ask(COLOUR)
    monkeypatch.setattr(AnswerStream, "said", lambda stream: "it says <|image|>, letter by letter")
    with pytest.raises(GarPromptError, match=r"answer before contains <\|image\|>"):
        chat.ask("And its shape?")


def test_every_answer_of_a_conversation_has_the_structure(scene: Scene) -> None:
    chat = scene.chat(MASK, options=Options(schema=object_of(sure={"type": "boolean"})))
    assert {type(chat.ask(question).value["sure"]) for question in (COLOUR, "Is <Prompt0> large?")} == {bool}


def test_a_conversation_goes_on_behind_a_value_that_its_model_could_not_make(scene: Scene) -> None:
    """The question was asked and answered, whatever the caller's own code made of that."""

    class Failing(pydantic.BaseModel):
        sure: bool

        @pydantic.field_validator("sure")
        @classmethod
        def fail(cls, value: bool) -> bool:
            raise KeyError("its own fault")

    chat = scene.chat(MASK, options=Options(schema=Failing))
    for question in (COLOUR, "Is <Prompt0> large?"):
        with pytest.raises(KeyError, match="its own fault"):
            chat.ask(question)
    stream = chat.stream("Is it red?")
    assert stream.said().startswith('{"sure": ')


def test_a_stream_that_is_closed_early_has_no_value(scene: Scene, nano: Gar) -> None:
    """Though its answer was whole by then: what was not read was not said."""
    stream = scene.stream(COLOUR, MASK, options=Options(schema=object_of(sure={"type": "boolean"}), logprobs=0))
    first = next(iter(stream))
    scene.ask(COLOUR, MASK)  # behind it in the queue's order, so that the stream's answer has been made
    stream.close()
    answer = stream.finish()
    assert (answer.text, answer.value, answer.finish_reason) == (first, None, "cancelled")
    assert answer.logprobs is not None
    assert len(answer.logprobs) == len(answer.tokens)


def test_streams_say_structured_answers_piece_by_piece(scene: Scene) -> None:
    stream = scene.stream(COLOUR, MASK, options=Options(schema=object_of(colour={"enum": ["pink", "red"]})))
    pieces = list(stream)
    assert "".join(pieces) == stream.finish().text
    assert json.loads("".join(pieces)) == stream.finish().value


def test_the_time_limit_holds(nano: Gar, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(nano, monkeypatch, 0.03)
    scene = nano.open("examples/scene_2.png")
    answer = scene.describe("examples/scene_2_mask_0.png", options=Options(regex="[a-z]{1000}", seconds=0.5))
    assert (answer.finish_reason, answer.value) == ("timeout", None)
    assert answer.text


def test_one_that_fails_takes_no_others_with_it(nano: Gar, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matcher that gives up in the middle of a batch: its own answer fails, the one beside it goes on."""
    slow(nano, monkeypatch, 0.01)
    scene = nano.open("examples/scene_1.png")
    alone = scene.describe("examples/scene_1_mask_1.png").tokens
    beside = scene.stream(None, {1: "examples/scene_1_mask_1.png"})
    held = scene.stream(COLOUR, MASK, options=Options(regex="[a-z ]{300}"))
    next(iter(held))

    def give_up(self: Matcher, token: int) -> None:
        raise GarPromptError("given up")

    monkeypatch.setattr(Matcher, "take", give_up)
    with pytest.raises(GarPromptError, match="given up"):
        held.finish()
    assert beside.finish().tokens == alone


def test_llguidance_is_asked_for_where_it_is_missing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Gar.load(SHIPPED).open("examples/scene_1.png")
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(GarBackendError, match=r"pip install 'gar-edge\[structured\]'"):
        fresh.ask(COLOUR, MASK, options=Options(regex="a"))
    assert fresh.choose(COLOUR, MASK, ["red", "pink"]).best == "pink"  # needs none of it
