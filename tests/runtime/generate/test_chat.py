"""Follow-up questions: the whole conversation is the prompt, and what the cache holds of it is not computed again."""

from pathlib import Path

import numpy as np
import pytest

from gar_edge.runtime import Gar, GarPromptError, Options
from gar_edge.runtime.generate.prompt import Turn

EXAMPLES = Path(__file__).parents[3] / "examples"
MASKS = {0: EXAMPLES / "scene_1_mask_0.png", 1: EXAMPLES / "scene_1_mask_1.png"}
FIRST = "Is <Prompt0> left of <Prompt1>?"
OPTIONS = Options(max_new_tokens=20)


@pytest.fixture
def gar(half_nano: Path) -> Gar:
    return Gar.load(half_nano)


def test_a_follow_up_prefills_only_itself(gar: Gar, half_nano: Path) -> None:
    chat = gar.open(EXAMPLES / "scene_1.png").chat(MASKS, options=OPTIONS)
    first = chat.ask(FIRST)
    second = chat.ask("What colour is <Prompt0>?")
    third = chat.ask("And its shape?")
    for before, after in ((first, second), (second, third)):
        assert after.reuse.tiles_encoded == 0
        assert after.reuse.tokens_reused >= before.prompt_tokens
        assert after.reuse.tokens_prefilled < 100
    # Three caches that held nothing: the same conversation, prefilled whole each time.
    for count, answer in ((1, first), (2, second), (3, third)):
        forgetful = Gar.load(half_nano, cache_bytes=0).open(EXAMPLES / "scene_1.png").chat(MASKS, options=OPTIONS)
        for question in (FIRST, "What colour is <Prompt0>?", "And its shape?")[:count]:
            last = forgetful.ask(question)
        assert last.reuse.tokens_reused == 0
        assert (last.tokens, last.prompt_tokens) == (answer.tokens, answer.prompt_tokens)


def test_the_prompt_is_the_conversation_in_the_models_template(gar: Gar) -> None:
    ids = gar.pipeline.prompts.build(FIRST, [0, 1], 2, [Turn("yes", "What is <Prompt1>?")])
    text = gar.pipeline.bundle.tokenizer.decode(ids.tolist(), skip_special_tokens=False)
    tail = text[text.index(FIRST) + len(FIRST) :]
    assert tail == (
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nyes"
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhat is <Prompt1>?"
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_an_unfinished_answer_is_finished_first(gar: Gar) -> None:
    chat = gar.open(EXAMPLES / "scene_1.png").chat(MASKS, options=OPTIONS)
    stream = chat.stream(FIRST)
    next(iter(stream))
    second = chat.ask("What colour is <Prompt0>?")
    assert stream.finish().finish_reason == "stop"
    assert second.prompt_tokens > stream.finish().prompt_tokens


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "the question is empty"),
        ("What is <Prompt3>?", "<Prompt3>, for which no mask was given"),
        ("What is <|eot_id|>?", r"<\|eot_id\|>, which the model reserves"),
    ],
)
def test_a_bad_follow_up_leaves_the_conversation_as_it_was(gar: Gar, question: str, message: str) -> None:
    chat = gar.open(EXAMPLES / "scene_1.png").chat(MASKS, options=OPTIONS)
    chat.ask(FIRST)
    with pytest.raises(GarPromptError, match=message):
        chat.ask(question)
    good = gar.open(EXAMPLES / "scene_1.png").chat(MASKS, options=OPTIONS)
    good.ask(FIRST)
    assert chat.ask("Which is larger?").tokens == good.ask("Which is larger?").tokens


def test_the_first_question_names_every_region(gar: Gar) -> None:
    chat = gar.open(EXAMPLES / "scene_1.png").chat(MASKS, options=OPTIONS)
    with pytest.raises(GarPromptError, match="does not name <Prompt1>"):
        chat.ask("What colour is <Prompt0>?")
    assert chat.ask(FIRST).tokens


def test_a_conversation_that_fills_the_context_ends_with_an_error(gar: Gar) -> None:
    chat = gar.open(EXAMPLES / "scene_1.png").chat(MASKS, options=OPTIONS)
    chat.ask(FIRST)
    with pytest.raises(GarPromptError, match="the model takes"):
        chat.ask("word " * gar.manifest.dimensions.context)
    assert np.asarray(chat.ask("What colour is <Prompt0>?").tokens).size
