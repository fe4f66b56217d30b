"""Guessing ahead changes how many steps an answer takes, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from gar_edge.runtime import Gar, Options
from gar_edge.runtime.engines.limits import SELECTED_AT_ONCE
from gar_edge.runtime.generate.speculation import PromptLookup

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_what_followed_the_same_words_is_guessed() -> None:
    text = PromptLookup([1, 2, 3, 4, 5, 1, 2])
    assert text.guess(3) == [3, 4, 5]
    assert text.guess(9) == [3, 4, 5, 1, 2]
    assert text.guess(0) == []


def test_the_longest_match_counts_then_the_latest() -> None:
    text = PromptLookup([1, 2, 3, 8, 9, 2, 3, 7, 1, 2, 3])
    assert text.guess(1) == [8]  # after 1 2 3, though 2 3 was seen later
    text.extend([8, 2, 3])
    assert text.guess(2) == [8, 2]  # after 2 3, the latest time


def test_nothing_is_guessed_after_new_words() -> None:
    assert PromptLookup([]).guess(4) == []
    assert PromptLookup([1]).guess(4) == []
    text = PromptLookup([1, 2, 3, 9, 3])
    assert text.guess(4) == []  # one word in common is too little
    text.extend([4])
    assert text.guess(4) == []


@pytest.fixture
def mask(picture: np.ndarray) -> np.ndarray:
    mask = np.zeros(picture.shape[:2], bool)
    mask[5:30, 5:30] = True
    return mask


@pytest.mark.parametrize("decoder", ["standard", "compat"])
@pytest.mark.parametrize("ahead", [1, 5, 100])
def test_an_answer_that_repeats_itself_takes_fewer_steps(
    compat_bundle: Path, picture: np.ndarray, mask: np.ndarray, decoder: str, ahead: int
) -> None:
    gar = Gar.load(compat_bundle, decoder=decoder)
    plain = gar.open(picture).describe(mask, options=Options(max_new_tokens=50))
    runs = []
    bind = gar.pipeline.decoder.session.bind
    gar.pipeline.decoder.session.bind = lambda inputs, outputs: (
        runs.append(inputs["select"].shape[0]) or bind(inputs, outputs)
    )
    answer = gar.open(picture).describe(mask, options=Options(max_new_tokens=50, speculate=ahead))
    assert (answer.tokens, answer.text, answer.finish_reason) == (plain.tokens, plain.text, plain.finish_reason)
    assert answer.reuse.guesses_true <= answer.reuse.tokens_guessed
    assert max(runs) <= min(ahead + 1, SELECTED_AT_ONCE)
    if answer.reuse.guesses_true:
        assert sum(runs[1:]) < len(answer.tokens) + answer.reuse.tokens_guessed


@pytest.mark.parametrize("seed", range(4))
def test_wrong_guesses_leave_no_trace(half_nano: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses of which each token is right with probability 0.7, behind every step and up to the answer's last."""
    gar, random = Gar.load(half_nano), np.random.default_rng(seed)
    scene = gar.open(EXAMPLES / "scene_1.png")
    limit = 60 - 9 * seed
    for number in range(5):
        mask = EXAMPLES / f"scene_1_mask_{number}.png"
        plain = scene.describe(mask, options=Options(max_new_tokens=limit))

        class Guesser(PromptLookup):
            def guess(self, most: int, truth: tuple[int, ...] = plain.tokens) -> list[int]:
                said = len(self._ids) - plain.prompt_tokens  # noqa: B023
                right = random.random(most) < 0.7
                return [one if good else 11 for one, good in zip(truth[said:], right, strict=False)]

        monkeypatch.setattr("gar_edge.runtime.generate.speaking.PromptLookup", Guesser)
        answer = scene.describe(mask, options=Options(max_new_tokens=limit, speculate=6))
        assert (answer.tokens, answer.text, answer.finish_reason) == (plain.tokens, plain.text, plain.finish_reason)
        assert 0 < answer.reuse.guesses_true < answer.reuse.tokens_guessed


def test_the_next_question_continues_a_speculated_answer(half_nano: Path) -> None:
    gar, options = Gar.load(half_nano), Options(max_new_tokens=40, speculate=8)
    scene = gar.open(EXAMPLES / "scene_1.png")
    mask = EXAMPLES / "scene_1_mask_2.png"
    scene.ask("What shape is <Prompt1>?", {1: mask}, options=options)
    second = scene.ask("What colour is <Prompt1>?", {1: mask}, options=options)
    fresh = Gar.load(half_nano).open(EXAMPLES / "scene_1.png").ask("What colour is <Prompt1>?", {1: mask})
    assert second.reuse.tokens_reused > 0
    assert second.tokens == fresh.tokens


def test_drawn_answers_are_never_guessed(half_nano: Path) -> None:
    gar = Gar.load(half_nano)
    scene, mask = gar.open(EXAMPLES / "scene_1.png"), EXAMPLES / "scene_1_mask_0.png"
    answers = [
        scene.describe(mask, options=Options(max_new_tokens=20, temperature=1.0, seed=5, speculate=ahead))
        for ahead in (0, 8)
    ]
    assert answers[0].tokens == answers[1].tokens
    assert answers[1].reuse.tokens_guessed == 0
