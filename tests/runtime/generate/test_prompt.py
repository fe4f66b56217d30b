"""Prompts: what is refused, and that the questions' wording reaches the tokens."""

from pathlib import Path

import pytest

from gar_edge.runtime import Gar, GarPromptError
from gar_edge.runtime.generate.prompt import PromptBuilder


@pytest.fixture(scope="module")
def prompts(tiny_bundle: Path) -> PromptBuilder:
    return Gar.load(tiny_bundle).pipeline.prompts


@pytest.mark.parametrize(
    ("question", "numbers", "message"),
    [
        (None, [], "no region given"),
        (None, [0, 1], "2 regions need a question"),
        ("<Prompt0>?", [0, 1], "does not name <Prompt1>"),
        ("<Prompt0> and <Prompt2>?", [0], "names <Prompt2>, for which no mask"),
        ("What is it?", [0], "does not name <Prompt0>"),
        ("  ", [0], "question is empty"),
        ("<Prompt7>?", [7], "region 7 does not exist; they are numbered 0 to 4"),
        (None, [-1], "region -1 does not exist"),
        ("?", [0, 1, 2, 3, 4, 5], "6 regions given, the model takes at most 5"),
        ("<Prompt0> <|eot_id|>", [0], r"contains <\|eot_id\|>, which the model reserves"),
        ("<Prompt0> <|image|>", [0], r"contains <\|image\|>"),
        ("<Prompt0> <|reserved_special_token_2|>", [0], "reserves"),
        ("<Prompt0> <NO_Prompt>", [0], "reserves"),
    ],
)
def test_refused(prompts: PromptBuilder, question: str | None, numbers: list[int], message: str) -> None:
    with pytest.raises(GarPromptError, match=message) as error:
        prompts.check(question, numbers)
    assert "\n" not in str(error.value)


def test_regions_keep_the_order_in_which_they_are_given(prompts: PromptBuilder, tiny_bundle: Path) -> None:
    question = "<Prompt3> or <Prompt1>?"
    spec = Gar.load(tiny_bundle).manifest.prompt
    for numbers in ([3, 1], [1, 3]):
        ids = prompts.build(question, numbers, 2).tolist()
        assert [token for token in ids if token in spec.replay_tokens][:: ids.count(spec.replay_tokens[1])] == [
            spec.replay_tokens[number] for number in numbers
        ]


def test_jinja_in_a_question_is_text(prompts: PromptBuilder) -> None:
    ids = prompts.build("<Prompt0> {{ 1 + 1 }} {% raise %}", [0], 2)
    plain = prompts.build("<Prompt0> ", [0], 2)
    assert len(ids) == len(plain) + len("{{ 1 + 1 }} {% raise %}") + 1  # one token a byte; trim took the blank


def test_every_feature_has_a_token(tiny_bundle: Path) -> None:
    gar = Gar.load(tiny_bundle)
    spec, tokens = gar.manifest.prompt, gar.manifest.dimensions.tile_tokens
    ids = gar.pipeline.prompts.build("<Prompt0> <Prompt4>", [0, 4], 7)
    assert (ids == spec.image_token).sum() == 7 * tokens
    assert [int((ids == token).sum()) for token in spec.replay_tokens] == [tokens, 0, 0, 0, tokens]
