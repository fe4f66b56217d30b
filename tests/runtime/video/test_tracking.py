"""A region that is followed, against where it was drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from helpers.video_files import square_frame, square_mask

from gar_edge.runtime.errors import GarMaskError
from gar_edge.runtime.video.tracking import Tracker

WIDTH, HEIGHT, SIDE = 320, 240, 48


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union."""
    return float((first & second).sum() / (first | second).sum())


def texture(random: np.random.Generator, width: int, height: int, low: int, high: int) -> np.ndarray:
    coarse = random.integers(low, high, (height // 6, width // 6, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


class Film:
    """A textured patch that moves, grows and turns over a textured ground, with noise."""

    def __init__(self, scale: int = 1) -> None:
        self._random = np.random.default_rng(0)
        self._size = WIDTH * scale, HEIGHT * scale
        self._scale = scale
        self._ground = texture(self._random, *self._size, 60, 140)
        self._patch = texture(self._random, SIDE * scale, SIDE * scale, 0, 255)

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The frame and the patch's mask in it."""
        middle = SIDE * self._scale / 2
        motion = cv2.getRotationMatrix2D((middle, middle), 0.5 * step, 1 + 0.008 * step)
        motion[:, 2] += self._scale * np.array([60 + 2 * step, 120 + 30 * np.sin(step / 10)]) - middle
        mask = cv2.warpAffine(np.full(self._patch.shape[:2], 255, np.uint8), motion, self._size) > 127
        frame = np.where(mask[..., None], cv2.warpAffine(self._patch, motion, self._size), self._ground)
        noise = self._random.normal(0, 4, frame.shape)
        return np.clip(frame + noise, 0, 255).astype(np.uint8), mask


@pytest.mark.parametrize("scale", [1, 3])  # 3: larger than what is looked at
def test_shift_growth_and_turn_are_followed(scale: int) -> None:
    film = Film(scale)
    tracker = Tracker(*film[0])
    for step in range(1, 90 if scale == 1 else 20):
        frame, truth = film[step]
        assert tracker.follow(frame)
        assert overlap(tracker.mask(), truth) > 0.85


def test_a_plain_square_is_followed_by_its_corners() -> None:
    tracker = Tracker(square_frame(0), square_mask(0))
    for step in range(1, 60):
        assert tracker.follow(square_frame(step))
        assert overlap(tracker.mask(), square_mask(step)) > 0.85


def test_a_thing_as_bright_as_its_ground_is_followed_by_its_colour() -> None:
    def frame(step: int) -> np.ndarray:
        return np.where(square_mask(step)[..., None], (210, 40, 40), (91, 91, 91)).astype(np.uint8)

    grey = cv2.cvtColor(frame(0), cv2.COLOR_RGB2GRAY)
    assert np.ptp(grey) == 0
    tracker = Tracker(frame(0), square_mask(0))
    for step in range(5, 60, 5):
        assert tracker.follow(frame(step))
        assert overlap(tracker.mask(), square_mask(step)) > 0.85


def test_what_is_covered_for_a_moment_is_found_again() -> None:
    film = Film()
    tracker = Tracker(*film[0])
    for step in range(1, 45):
        frame, truth = film[step]
        covered = 30 <= step < 36
        if covered:
            frame[:, 60:220] = 40
        assert tracker.follow(frame) is not covered
        assert covered or overlap(tracker.mask(), truth) > 0.85


@pytest.mark.parametrize("gone", ["plain", "other"])
def test_a_region_that_is_gone_is_not_seen(gone: str) -> None:
    film = Film()
    tracker = Tracker(*film[0])
    last = tracker.mask()
    other = texture(np.random.default_rng(5), WIDTH, HEIGHT, 0, 255)
    for _ in range(5):
        assert not tracker.follow(other if gone == "other" else np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    assert np.array_equal(tracker.mask(), last)


def test_a_region_that_leaves_the_picture_is_lost() -> None:
    seen = []
    frame, mask = square_frame(0), square_mask(0)
    tracker = Tracker(frame, mask)
    for step in range(2, 160, 2):
        wide = np.full((120, 320, 3), 90, np.uint8)
        wide[30:70, 20 + step : 60 + step] = (220, 0, 0)
        seen.append(tracker.follow(wide[:, :160]))
    assert all(seen[:40])
    assert not any(seen[75:])


def test_a_region_too_small_to_be_seen_is_refused() -> None:
    """A pixel of a large picture is nothing in the small one that is looked at."""
    picture = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    mask = np.zeros(picture.shape[:2], bool)
    mask[500, 500] = True
    with pytest.raises(GarMaskError, match="no corners"):
        Tracker(picture, mask)


def test_a_region_without_corners_is_refused() -> None:
    with pytest.raises(GarMaskError, match="no corners"):
        Tracker(square_frame(0, shown=False), square_mask(0))
