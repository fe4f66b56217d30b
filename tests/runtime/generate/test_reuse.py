"""Answers that reuse earlier work are equal, token for token, to answers that do not."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest

from gar_edge.runtime import Answer, Gar, Options, Reuse

OPTIONS = Options(max_new_tokens=8)
TILES = 7  # 3x2 and the thumbnail


def region(picture: np.ndarray, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(picture.shape[:2], bool)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.fixture
def gar(tiny_bundle: Path) -> Gar:
    return Gar.load(tiny_bundle)


@pytest.fixture
def masks(picture: np.ndarray) -> dict[str, np.ndarray]:
    """`left` and `right` lie deep inside the first and the last of 3x2 tiles of a picture of 130x90."""
    return {"left": region(picture, 5, 5, 30, 30), "right": region(picture, 100, 60, 125, 85)}


def fresh(tiny_bundle: Path, picture: np.ndarray, question: str | None, masks: dict[int, np.ndarray]) -> Answer:
    """The answer of a model that has seen nothing before."""
    return Gar.load(tiny_bundle, cache_bytes=0).open(picture).stream(question, masks, options=OPTIONS).finish()


def same(answer: Answer, expected: Answer) -> bool:
    return (answer.tokens, answer.text, answer.prompt_tokens) == (
        expected.tokens, expected.text, expected.prompt_tokens,
    )  # fmt: skip


def test_another_region_encodes_the_thumbnail_and_the_tiles_touched(
    gar: Gar, tiny_bundle: Path, picture: np.ndarray, masks: dict[str, np.ndarray]
) -> None:
    scene = gar.open(picture)
    first = scene.describe(masks["left"], options=OPTIONS)
    second = scene.describe(masks["right"], options=OPTIONS)
    assert scene.grid == (3, 2)
    assert (first.reuse.tiles_encoded, first.reuse.tiles_reused) == (TILES, 0)
    assert (second.reuse.tiles_encoded, second.reuse.tiles_reused) == (3, TILES - 3)  # thumbnail, old tile, new tile
    assert same(second, fresh(tiny_bundle, picture, None, {1: masks["right"]}))


def test_a_region_seen_before_encodes_nothing(
    gar: Gar, tiny_bundle: Path, picture: np.ndarray, masks: dict[str, np.ndarray]
) -> None:
    scene = gar.open(picture)
    answers = [scene.describe(masks[name], options=OPTIONS) for name in ("left", "right", "left")]
    assert answers[2].reuse.tiles_encoded == 0
    assert same(answers[2], answers[0])


def test_another_question_prefills_only_what_differs(
    gar: Gar, tiny_bundle: Path, picture: np.ndarray, masks: dict[str, np.ndarray]
) -> None:
    scene, pair = gar.open(picture), {0: masks["left"], 3: masks["right"]}
    scene.ask("Is <Prompt0> left of <Prompt3>?", pair, options=OPTIONS)
    question = "Is <Prompt0> larger than <Prompt3>?"
    second = scene.ask(question, pair, options=OPTIONS)
    end = len("larger than <Prompt3>?") - len("<Prompt3>") + 1  # a token a byte; a region's name is one token
    footer = second.prompt_tokens - second.reuse.tokens_reused - end
    assert second.reuse.tiles_encoded == 0
    assert second.reuse.tokens_prefilled + second.reuse.tokens_reused == second.prompt_tokens
    assert 0 < footer < 20  # the template's end of turn and the assistant's header
    assert same(second, fresh(tiny_bundle, picture, question, pair))


def test_the_same_question_again(gar: Gar, picture: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    scene = gar.open(picture)
    first = scene.describe(masks["left"], options=OPTIONS)
    again = scene.describe(masks["left"], options=OPTIONS)
    assert again.reuse == Reuse(0, TILES, 1, again.prompt_tokens - 1)
    assert same(again, first)


def test_a_longer_answer_goes_on_in_a_cache_that_grows(
    gar: Gar, tiny_bundle: Path, picture: np.ndarray, masks: dict[str, np.ndarray]
) -> None:
    scene = gar.open(picture)
    scene.describe(masks["left"], options=OPTIONS)
    longer = Options(max_new_tokens=200)
    answer = scene.describe(masks["left"], options=longer)
    assert answer.reuse.tokens_prefilled == 1
    assert answer.tokens == Gar.load(tiny_bundle).open(picture).describe(masks["left"], options=longer).tokens


def test_the_same_mask_under_another_number_is_another_prompt(
    gar: Gar, tiny_bundle: Path, picture: np.ndarray, masks: dict[str, np.ndarray]
) -> None:
    scene = gar.open(picture)
    scene.describe(masks["left"], number=1, options=OPTIONS)
    answer = scene.describe(masks["left"], number=2, options=OPTIONS)
    assert answer.reuse.tokens_reused == 0
    assert same(answer, fresh(tiny_bundle, picture, None, {2: masks["left"]}))


def test_scenes_do_not_mix(gar: Gar, tiny_bundle: Path, picture: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    other = np.ascontiguousarray(picture[:, ::-1])
    scenes = [gar.open(picture), gar.open(other)]
    for image, scene in [(picture, scenes[0]), (other, scenes[1]), (picture, scenes[0])]:
        answer = scene.describe(masks["left"], options=OPTIONS)
        assert same(answer, fresh(tiny_bundle, image, None, {1: masks["left"]}))


@pytest.mark.parametrize("tiles", [0, 1, 4])
def test_a_small_budget_costs_time_not_exactness(
    tiny_bundle: Path, picture: np.ndarray, masks: dict[str, np.ndarray], tiles: int
) -> None:
    probe = Gar.load(tiny_bundle)
    one = probe.manifest.dimensions.tile_tokens * probe.manifest.dimensions.hidden * 4
    gar = Gar.load(tiny_bundle, cache_bytes=tiles * one)
    scene = gar.open(picture)
    for name in ("left", "right", "left"):
        answer = scene.describe(masks[name], options=OPTIONS)
        assert gar.scheduler.kept.bytes <= tiles * one
        assert same(answer, fresh(tiny_bundle, picture, None, {1: masks[name]}))


def test_after_a_cancelled_answer_the_next_is_whole(
    gar: Gar, tiny_bundle: Path, picture: np.ndarray, masks: dict[str, np.ndarray]
) -> None:
    scene = gar.open(picture)
    stream = scene.stream(None, {1: masks["left"]}, options=Options(max_new_tokens=30))
    next(iter(stream))
    stream.close()
    answer = scene.describe(masks["left"], options=OPTIONS)
    assert answer.reuse.tokens_reused > 0
    assert same(answer, fresh(tiny_bundle, picture, None, {1: masks["left"]}))


def test_two_streams_of_one_scene_do_not_share_a_cache(
    gar: Gar, tiny_bundle: Path, picture: np.ndarray, masks: dict[str, np.ndarray]
) -> None:
    scene = gar.open(picture)
    scene.describe(masks["left"], options=OPTIONS)
    streams = [scene.stream(None, {1: masks["left"]}, options=OPTIONS) for _ in range(2)]
    for stream in streams:
        next(iter(stream), None)  # both have begun before either ends
    expected = fresh(tiny_bundle, picture, None, {1: masks["left"]})
    assert [same(stream.finish(), expected) for stream in streams] == [True, True]


def test_threads_on_one_scene(gar: Gar, tiny_bundle: Path, picture: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    scene, found = gar.open(picture), {}

    def work(index: int) -> None:
        found[index] = scene.describe(masks["left" if index % 2 else "right"], options=OPTIONS)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {name: fresh(tiny_bundle, picture, None, {1: mask}) for name, mask in masks.items()}
    assert all(same(found[index], expected["left" if index % 2 else "right"]) for index in range(6))


def test_a_scene_that_is_gone_frees_its_memory(gar: Gar, picture: np.ndarray, masks: dict[str, np.ndarray]) -> None:
    scene = gar.open(picture)
    scene.describe(masks["left"], options=OPTIONS)
    assert gar.scheduler.kept.bytes > 0
    del scene
    gc.collect()
    assert gar.scheduler.kept.bytes == 0
