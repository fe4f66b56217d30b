"""Log-probabilities of tokens: against hand-worked distributions and torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gar_edge.runtime import Confidence, Gar, Options, TokenLogprob
from gar_edge.runtime.generate.logprobs import LogprobRecord, log_softmax

MASK = "examples/scene_1_mask_0.png"


def test_log_softmax_is_torchs() -> None:
    for scale in (1.0, 50.0, 3e4):
        logits = np.random.default_rng(int(scale)).normal(0, scale, 128262).astype(np.float32)
        expected = torch.from_numpy(logits).double().log_softmax(0).numpy()
        np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-6, atol=1e-5)


def test_masked_logits_have_no_probability() -> None:
    found = log_softmax(np.array([0.0, -np.inf, 0.0], np.float32))
    np.testing.assert_allclose(found, [math.log(0.5), -np.inf, math.log(0.5)], rtol=1e-6)


def test_the_likeliest_are_in_order_and_equals_by_their_ids(nano: Gar) -> None:
    record = LogprobRecord(3)
    record.add(1, np.log(np.array([0.2, 0.1, 0.2, 0.5], np.float32)))
    (one,) = record.read(nano.pipeline.bundle.tokenizer)
    assert one.token == 1
    assert one.logprob == pytest.approx(math.log(0.1), abs=1e-6)
    assert [other.token for other in one.likeliest] == [3, 0, 2]
    np.testing.assert_allclose([math.exp(other.logprob) for other in one.likeliest], [0.5, 0.2, 0.2], rtol=1e-5)
    more = LogprobRecord(99)  # than there are tokens
    more.add(0, np.zeros(4, np.float32))
    assert [other.token for other in more.read(nano.pipeline.bundle.tokenizer)[0].likeliest] == [0, 1, 2, 3]


def test_confidence_is_the_mean_and_the_lowest() -> None:
    logprobs = [TokenLogprob(1, "a", math.log(0.5)), TokenLogprob(2, "b", math.log(0.125))]
    confidence = Confidence.of(logprobs)
    assert confidence is not None
    assert (confidence.mean, confidence.lowest) == (pytest.approx(0.25), pytest.approx(0.125))
    assert Confidence.of([]) is None


def test_they_are_only_there_when_asked_for(nano: Gar) -> None:
    scene = nano.open("examples/scene_1.png")
    plain = scene.describe(MASK)
    assert (plain.logprobs, plain.confidence) == (None, None)
    assert "logprobs" not in plain.to_json()
    asked = scene.describe(MASK, options=Options(logprobs=2))
    assert asked.tokens == plain.tokens
    assert asked.logprobs is not None
    assert [one.token for one in asked.logprobs] == list(asked.tokens)
    assert all(one.likeliest[0].token == one.token for one in asked.logprobs)  # greedy: each is the likeliest
    assert "".join(one.text for one in asked.logprobs[:-1]) == asked.text
    assert 0 < asked.confidence.lowest <= asked.confidence.mean <= 1


@pytest.mark.parametrize("options", [{"speculate": 8}, {"temperature": 0.7, "seed": 3}, {"stop": ("at",)}])
def test_they_go_with_guesses_draws_and_stop_texts(nano: Gar, options: dict[str, object]) -> None:
    scene = nano.open("examples/scene_1.png")
    answer = scene.describe(MASK, options=Options(logprobs=0, **options))
    assert answer.logprobs is not None
    assert [one.token for one in answer.logprobs] == list(answer.tokens)


def test_side_by_side_they_are_those_of_the_answer_alone(nano: Gar) -> None:
    scene = nano.open("examples/scene_1.png")
    masks = [f"examples/scene_1_mask_{number}.png" for number in range(4)]
    alone = [scene.describe(mask, options=Options(logprobs=1)).logprobs for mask in masks]
    beside = [answer.logprobs for answer in scene.describe_all(masks, options=Options(logprobs=1))]
    for one, other in zip(alone, beside, strict=True):
        assert one is not None
        assert other is not None
        assert [it.token for it in one] == [it.token for it in other]
        np.testing.assert_allclose([it.logprob for it in one], [it.logprob for it in other], atol=1e-3)
