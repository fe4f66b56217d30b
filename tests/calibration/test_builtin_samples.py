"""Samples that need no data of the user's: photographs that come with scikit-image, and drawn scenes."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from helpers.sample_files import PROMPTS, check, same
from helpers.spoilt import one_line

from gar_edge.calibration import samples
from gar_edge.calibration.samples import Sample, drawn_scenes, photographs
from gar_edge.runtime.errors import GarCalibrationError

# The default set


@pytest.fixture(scope="module")
def photos() -> list[Sample]:
    return list(photographs(None, PROMPTS))


def test_there_are_many_photographs_and_all_can_be_used(photos: list[Sample]) -> None:
    assert len({sample.name for sample in photos}) == len(photos) >= 32
    for sample in photos:
        check(sample)


def test_no_photograph_is_another(photos: list[Sample]) -> None:
    assert len({(sample.image.shape, sample.image.tobytes()) for sample in photos}) == len(photos)


def test_regions_are_connected_apart_and_of_a_fit_size(photos: list[Sample]) -> None:
    from skimage.measure import label

    for sample in photos:
        masks = list(sample.masks.values())
        assert sum(masks).max() == 1, sample.name
        for mask in masks:
            assert label(mask, connectivity=2).max() == 1, sample.name
            assert 0.005 < mask.mean() < 0.45, sample.name


def test_the_first_samples_are_different_photographs_in_every_format() -> None:
    chosen = photographs(4, PROMPTS)
    found = list(chosen)
    assert [sample.name for sample in found] == ["astronaut", "coffee", "rocket", "coins"]
    assert [(len(sample.masks), sample.question is None) for sample in found] == [
        (1, True),
        (2, False),
        (1, False),
        (3, False),
    ]
    assert list(found[0].masks) == [1]  # described as the released demo does
    assert chosen.builtin
    assert chosen.skipped == []
    assert chosen.description.startswith("4 photographs that come with scikit-image")


def test_photographs_are_in_colour_in_grey_and_of_several_shapes(photos: list[Sample]) -> None:
    assert any((sample.image[..., 0] != sample.image[..., 2]).any() for sample in photos)
    ratios = [sample.image.shape[1] / sample.image.shape[0] for sample in photos]
    assert min(ratios) < 0.5
    assert max(ratios) > 2


def test_photographs_use_all_prompt_numbers(photos: list[Sample]) -> None:
    assert {number for sample in photos for number in sample.masks} == set(range(PROMPTS))


def test_photographs_are_the_same_again_and_others_from_another_seed() -> None:
    chosen = photographs(5, PROMPTS)
    assert same(chosen, chosen)
    assert same(chosen, photographs(5, PROMPTS, seed=0))
    assert not same(chosen, photographs(5, PROMPTS, seed=1))


@pytest.mark.parametrize("prompts", [1, 2])
def test_a_model_of_few_prompts_gets_no_more_regions(prompts: int) -> None:
    for sample in photographs(6, prompts):
        check(sample, prompts)


def test_a_photograph_that_is_gone_is_skipped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "PHOTOGRAPHS", ("gone.png", "coins.png"))
    chosen = photographs(2, PROMPTS)
    for _ in range(2):
        assert [sample.name for sample in chosen] == ["coins", "coins (upper part)"]
    assert [note.split(":")[0] for note in chosen.skipped] == ["gone", "gone (upper part)"]


def test_without_scikit_image_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(GarCalibrationError) as error:
        photographs(4, PROMPTS)
    one_line(error, "scikit-image", "pip install")


@pytest.mark.parametrize("count", [0, -3])
def test_no_samples_cannot_be_asked_for(count: int) -> None:
    with pytest.raises(GarCalibrationError) as error:
        photographs(count, PROMPTS)
    one_line(error, str(count))


# Drawn scenes


def test_drawn_scenes_ask_several_things_about_each_scene() -> None:
    chosen = drawn_scenes(40, seed=77)
    found = list(chosen)
    assert len(found) == 40
    assert chosen.builtin
    for sample in found:
        check(sample)
    formats = Counter((len(sample.masks), sample.question is None) for sample in found)
    assert set(formats) == {(1, True), (1, False), (2, False), (3, False)}
    assert min(formats.values()) >= 5
    assert len({sample.name for sample in found}) < 20
    assert len({(sample.name, sample.question) for sample in found}) == 40


def test_drawn_scenes_follow_their_seed() -> None:
    assert same(drawn_scenes(6, seed=5), drawn_scenes(6, seed=5))
    assert not same(drawn_scenes(6, seed=5), drawn_scenes(6, seed=6))
