"""Choosing by probability: against torch, which scores every choice alone."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest
import torch
from helpers.examples import COLOUR, MASK
from helpers.pictures import middle, noise
from helpers.reference_gar import Reference
from helpers.slowed import slow

from gar_edge.runtime import Choice, Choosing, Gar, GarPromptError, Options
from gar_edge.runtime.generate.side_by_side import answer_side_by_side
from gar_edge.runtime.scene import Scene

TEXTS = ("yes", "no", "a", "a cup", "a cup of tea", "red", "redder", "left", "left of it", "Ä", "😀", "7", "77", "x\\y")


def brute_force(reference: Reference, embeds: torch.Tensor, choice: str) -> tuple[float, int]:
    """A whole answer's log-probability, any stop token at its end, and its number of tokens without it."""
    ids = reference.tokenizer.encode(choice, add_special_tokens=False).ids
    behind = reference.logprobs(embeds, ids)
    said = sum(float(behind[place, token]) for place, token in enumerate(ids))
    return said + float(behind[-1, list(reference.checkpoint.stop_tokens)].logsumexp(0)), len(ids)


def test_a_choice_has_the_probability_that_torch_gives_it_alone(gar: Gar, by_the_book: Reference) -> None:
    """200 lists, half of them by length, about ten pictures: choices begin one another, and bytes make characters."""
    rng = np.random.default_rng(5)
    for seed in range(5):
        image = noise(seed)
        with torch.inference_mode():
            embeds, _ = by_the_book.embedded(image, {1: middle(image)}, "Which is <Prompt1>?", 1)
            truth = {choice: brute_force(by_the_book, embeds, choice) for choice in TEXTS}
        scene = gar.open(image, max_tiles=1)
        for case in range(20):
            choices = [str(text) for text in rng.permutation(TEXTS)[: rng.integers(2, 8)]]
            by_length = case % 2 == 1
            found = scene.choose(
                "Which is <Prompt1>?", {1: middle(image)}, choices, normalise="length" if by_length else None
            )
            sums = np.array([truth[choice][0] for choice in choices])
            scores = sums / [truth[choice][1] + 1 for choice in choices] if by_length else sums
            expected = np.exp(scores - scores.max())
            expected /= expected.sum()
            np.testing.assert_allclose([one.logprob for one in found.choices], sums, atol=1e-3)
            np.testing.assert_allclose([one.probability for one in found.choices], expected, atol=1e-3)
            assert [one.text for one in found.choices] == choices
            assert found.best == found.text == choices[int(expected.argmax())]
            second, first = np.sort(expected)[-2:]
            assert found.margin == pytest.approx(first - second, abs=1e-3)
            assert found.entropy == pytest.approx(-(expected * np.log(expected)).sum(), abs=1e-3)
            assert found.prompt_tokens > 0
            assert found.finish_reason == "stop"


def test_a_choice_that_begins_another_is_not_the_likelier_for_it(nano: Gar, scene: Scene) -> None:
    """What is said is "pink", and no more: its end counts, as does that of "p" and that of what goes on."""
    found = scene.choose(COLOUR, MASK, ["p", "pink", "pink star"])
    assert found.best == "pink"
    assert found.probabilities["pink"] > 0.99
    assert sum(found.probabilities.values()) == pytest.approx(1)


def test_a_prompt_is_prefilled_once_and_stays_for_the_next_question(scene: Scene, nano: Gar) -> None:
    first = scene.choose(COLOUR, MASK, ["red", "pink"])
    assert first.reuse.tokens_reused == 0
    again = scene.choose(COLOUR, MASK, ["green", "blue", "yellow"])
    assert again.reuse.tokens_prefilled == 1
    asked = scene.ask(COLOUR, MASK)
    assert asked.reuse.tokens_prefilled == 1
    assert asked.tokens == nano.open("examples/scene_1.png").ask(COLOUR, MASK).tokens
    assert scene.choose(COLOUR, MASK, ["red", "pink"]).choices == first.choices


def test_it_abstains_where_the_best_is_not_likely_enough(scene: Scene) -> None:
    sure = scene.choose(COLOUR, MASK, ["red", "pink"], abstain_below=0.9)
    assert (sure.best, sure.value) == ("pink", "pink")
    unsure = scene.choose(COLOUR, MASK, ["red", "blue", "green"], abstain_below=0.99)
    assert unsure.best is None
    assert unsure.value is None
    assert (unsure.text, unsure.tokens) == ("", ())
    assert unsure.likeliest is not None
    assert unsure.likeliest.text == max(unsure.probabilities, key=unsure.probabilities.__getitem__)
    assert unsure.likeliest.probability < 0.99


def test_json_has_the_choices_and_what_was_taken(scene: Scene) -> None:
    found = json.loads(json.dumps(scene.choose(COLOUR, MASK, ["red", "pink"]).to_json()))
    assert found["value"] == found["text"] == "pink"
    assert [one["text"] for one in found["choices"]] == ["red", "pink"]
    assert sum(one["probability"] for one in found["choices"]) == pytest.approx(1, abs=1e-5)
    assert found["margin"] == pytest.approx(
        found["choices"][1]["probability"] - found["choices"][0]["probability"], abs=1e-5
    )


def test_choices_longer_than_one_run_may_be(scene: Scene, nano: Gar) -> None:
    """An engine predicts behind sixteen positions at once; these have more tokens, and share beginnings of many."""
    long = "a large striped red star at the top left of the image, nearest to a small plain blue circle"
    choices = [long, long + ".", long + ". " + long, "pink"]
    found = scene.choose(COLOUR, MASK, choices)
    alone = [scene.choose(COLOUR, MASK, [choice, "pink"]).choices[0].logprob for choice in choices[:3]]
    np.testing.assert_allclose([one.logprob for one in found.choices[:3]], alone, rtol=1e-5)
    assert found.best == "pink"


def test_it_is_answered_beside_others(nano: Gar) -> None:
    """Choices and answers of eight threads, each equal to the one that it is alone."""
    scenes = [nano.open(f"examples/scene_{number}.png") for number in (1, 2)]
    masks = [{0: f"examples/scene_{number}_mask_0.png"} for number in (1, 2)]
    colours = ["red", "pink", "green", "blue", "yellow"]
    alone = [
        (scene.choose(COLOUR, mask, colours).probabilities, scene.describe(mask[0]).text)
        for scene, mask in zip(scenes, masks, strict=True)
    ]
    found: list[tuple[int, object, str]] = []

    def work(number: int) -> None:
        scene, mask = scenes[number % 2], masks[number % 2]
        for _ in range(4):
            found.append((number, scene.choose(COLOUR, mask, colours).probabilities, scene.describe(mask[0]).text))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 32
    for number, probabilities, text in found:
        assert text == alone[number % 2][1]
        assert probabilities == pytest.approx(alone[number % 2][0], abs=1e-5)


def test_many_are_prepared_for_one_run(scene: Scene, nano: Gar) -> None:
    choosing = Options(choosing=Choosing(("red", "pink")))
    asked = [scene.prepare(COLOUR, MASK, options=choosing), scene.prepare(COLOUR, MASK)]
    answers = dict(answer_side_by_side(nano.scheduler, asked))
    assert isinstance(answers[0], Choice)
    assert not isinstance(answers[1], Choice)
    assert answers[0].best == answers[1].text == "pink"


def test_cancelled_and_out_of_time(nano: Gar, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two choices, with nothing chosen and the prompt kept."""
    slow(nano, monkeypatch, 0.05)
    scene = nano.open("examples/scene_2.png")
    mask = {0: "examples/scene_2_mask_0.png"}
    choices = [f"{word} {number}" for word in ("red", "pink") for number in range(50)]
    late = scene.choose(COLOUR, mask, choices, options=Options(seconds=0.4))
    assert (late.finish_reason, late.best, late.text, late.choices) == ("timeout", None, "", ())
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    stopped = scene.choose(COLOUR, mask, choices, options=Options(cancel=cancel))
    assert (stopped.finish_reason, stopped.best, stopped.choices) == ("cancelled", None, ())
    assert stopped.reuse.tokens_prefilled <= 1  # the first had prefilled it


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "two choices or more"),
        (["yes"], "two choices or more"),
        (["yes", ""], "must not be empty"),
        (["yes", "  "], "must not be empty"),
        (["yes", "no", "yes"], "'yes' was given twice"),
        ("yes", "list of texts"),
        ([1, 2], "list of texts"),
        (["yes", "<|eot_id|>"], r"contains <\|eot_id\|>, which the model reserves"),
        (["yes", "<|image|>"], r"contains <\|image\|>"),
        (["yes", "<Prompt3>"], "names <Prompt3>, for which no mask was given"),
        (["yes", "\ud800"], "half characters"),
        ([str(number) for number in range(257)], "at most 256"),
        (["yes", "no " * 2000], "at most 256"),
    ],
)
def test_impossible_choices_are_refused_before_anything_is_computed(
    scene: Scene, choices: list[str], message: str
) -> None:
    with pytest.raises(GarPromptError, match=message):
        scene.choose(COLOUR, MASK, choices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"abstain_below": 1.5}, "a probability"),
        ({"abstain_below": math.nan}, "a probability"),
        ({"normalise": "tokens"}, 'None or "length"'),
        ({"options": Options(regex="a+")}, "chosen or has a structure"),
    ],
)
def test_impossible_ways_to_choose_are_refused(scene: Scene, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(GarPromptError, match=message):
        scene.choose(COLOUR, MASK, ["yes", "no"], **arguments)


def test_streams_and_conversations_choose_too(scene: Scene) -> None:
    choosing = Options(choosing=Choosing(("red", "pink")))
    stream = scene.stream(COLOUR, MASK, options=choosing)
    assert list(stream) == ["pink"]
    assert isinstance(stream.finish(), Choice)
    unsure = scene.stream(COLOUR, MASK, options=Options(choosing=Choosing(("red", "blue", "green"), abstain_below=1)))
    assert list(unsure) == []
    chat = scene.chat(MASK, options=choosing)
    assert chat.ask(COLOUR).text == "pink"
    assert isinstance(chat.ask("And once more, what colour is <Prompt0>?"), Choice)


def test_a_choice_may_name_the_regions_that_are_asked_about(scene: Scene) -> None:
    masks = {0: "examples/scene_1_mask_0.png", 1: "examples/scene_1_mask_1.png"}
    found = scene.choose("Which is larger, <Prompt0> or <Prompt1>?", masks, ["<Prompt0>", "<Prompt1>"])
    assert found.best in ("<Prompt0>", "<Prompt1>")
