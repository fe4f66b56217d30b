"""Drawing tokens: against hand-worked distributions."""

from dataclasses import replace

import numpy as np
import pytest

from gar_edge.runtime import GarPromptError, Options
from gar_edge.runtime.generate.sampling import Sampler

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))


def unread() -> np.ndarray:
    raise AssertionError("the logits were read, and a greedy answer needs eight bytes a step")


def frequencies(options: Options, draws: int = 20000) -> np.ndarray:
    sampler = Sampler(replace(options, seed=1))
    return np.bincount([sampler.draw(LOGITS) for _ in range(draws)], minlength=4) / draws


def test_greedy_takes_what_the_graph_found_likeliest() -> None:
    assert [Sampler(Options()).take(likeliest, unread) for likeliest in (7, 5)] == [7, 5]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(temperature=1.0), [0.1, 0.4, 0.2, 0.3]),
        (Options(temperature=0.5), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),  # squares, normalised
        (Options(temperature=1.0, top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (Options(temperature=1.0, top_k=1), [0, 1, 0, 0]),
        (Options(temperature=1.0, top_p=0.6), [0, 4 / 7, 0, 3 / 7]),  # 0.4 is not enough, 0.7 is
        (Options(temperature=1.0, top_p=0.3), [0, 1, 0, 0]),
        (Options(temperature=1.0, top_k=3, top_p=0.8), [0, 4 / 9, 2 / 9, 3 / 9]),
    ],
)
def test_frequencies(options: Options, expected: list[float]) -> None:
    np.testing.assert_allclose(frequencies(options), expected, atol=0.015)


def test_a_vanishing_temperature_is_greedy() -> None:
    assert Sampler(Options(temperature=1e-310, seed=0)).draw(LOGITS) == 1


def test_huge_logits_do_not_overflow() -> None:
    assert Sampler(Options(temperature=0.1, seed=0)).draw(np.array([1e4, -1e4], np.float32)) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_new_tokens", 0), ("temperature", -1.0), ("temperature", float("nan")), ("top_p", 0.0), ("top_p", 1.1),
     ("top_k", -1), ("seed", -1), ("stop", ("",))],
)  # fmt: skip
def test_impossible_options_are_refused(name: str, value: object) -> None:
    with pytest.raises(GarPromptError, match="must"):
        Options(**{name: value})
