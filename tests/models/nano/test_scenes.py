"""The generator is exact: masks partition what is seen, facts follow from them, and seeds reproduce."""

import numpy as np
import pytest

from gar_edge.models.nano import tasks, wording
from gar_edge.models.nano.exam import scene as exam_scene
from gar_edge.models.nano.scenes import draw_scene
from gar_edge.models.nano.truth import VISIBLE, Truth
from gar_edge.models.nano.vocabulary import COLOURS, FILLS, RGB, SHAPES, SIZES

SEEDS = range(25)


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(np.random.default_rng(seed)) for seed in SEEDS]


def test_same_seed_same_scene(scenes):
    again = draw_scene(np.random.default_rng(3))
    assert again.things == scenes[3].things
    np.testing.assert_array_equal(again.image, scenes[3].image)


def test_masks_do_not_share_pixels(scenes):
    for scene in scenes:
        assert np.sum(scene.masks, axis=0).max() <= 1
        assert all(mask.shape == scene.image.shape[:2] for mask in scene.masks)


def test_words_and_counts(scenes):
    assert {len(scene.things) for scene in scenes} <= set(range(2, 7))
    things = [thing for scene in scenes for thing in scene.things]
    for words, name in ((SHAPES, "shape"), (COLOURS, "colour"), (FILLS, "fill"), (SIZES, "size")):
        assert {getattr(thing, name) for thing in things} <= set(words)
    assert len(SHAPES) >= 8
    assert len(COLOURS) >= 8


def test_plain_things_have_their_colour(scenes):
    for scene in scenes:
        for thing, mask in zip(scene.things, scene.masks, strict=True):
            if thing.fill == "plain":
                median = np.median(scene.image[mask], axis=0)
                assert np.abs(median - RGB[thing.colour]).max() < 20


def test_sizes_are_apart(scenes):
    for scene in scenes:
        short = min(scene.width, scene.height)
        for thing in scene.things:
            x1, y1, x2, y2 = thing.box
            longer = max(x2 - x1, y2 - y1) / short
            assert {"small": 0.15 < longer < 0.22, "medium": 0.27 < longer < 0.35, "large": 0.43 < longer < 0.53}[
                thing.size
            ]


def test_clear_things_are_seen(scenes):
    for scene in scenes:
        for index in Truth(scene).clear:
            assert scene.visible[index] >= VISIBLE


def test_relations_are_consistent(scenes):
    for scene in scenes:
        truth = Truth(scene)
        for a in truth.clear:
            for b in truth.clear:
                if a == b:
                    continue
                assert scene.overlaps[a, b] == scene.overlaps[b, a]
                ab, ba = truth.offset(a, b, 0), truth.offset(b, a, 0)
                assert (ab is None) == (ba is None)
                assert ab is None or ab == pytest.approx(-ba)


def test_description_round_trip():
    facts = {
        "size": "small",
        "fill": "striped",
        "colour": "orange",
        "shape": "arrow",
        "place": "bottom right",
        "near_colour": "red",
        "near_shape": "moon",
    }
    text = wording.description(facts)
    assert text == "A small striped orange arrow at the bottom right of the image, nearest to a red moon."
    assert wording.parse_description(text) == facts
    assert wording.parse_description("nonsense") == {}


def test_questions_name_their_regions_and_choices_hold_the_answer():
    for index in range(15):
        for question in exam_scene(7, index):
            turn = question.turn
            if turn.question is None:
                assert len(question.masks) == 1
                continue
            for number in question.masks:
                assert wording.prompt(number) in turn.question
            if turn.task == "choice":
                options = dict(line.split(". ") for line in turn.question.splitlines() if line[1:3] == ". ")
                assert turn.answer in options
                assert len(set(options.values())) == len(options)


def test_swapping_masks_flips_the_truth():
    flips = {frozenset(pair) for pair in (("left", "right"), ("above", "below"), ("larger", "smaller"))}
    seen = set()
    for seed in SEEDS:
        truth = Truth(draw_scene(np.random.default_rng(seed)))
        if len(truth.clear) < 2:
            continue
        a, b = truth.clear[:2]
        for task in ("left_right", "above_below", "larger"):
            turn, swapped = (
                tasks.relation_turn(np.random.default_rng(1), tasks.Asked(truth, pair), task)
                for pair in (((0, a), (1, b)), ((0, b), (1, a)))
            )
            assert (turn is None) == (swapped is None)
            if turn is not None:
                assert turn.question == swapped.question
                seen.add(frozenset((turn.answer, swapped.answer)))
    assert seen == flips
