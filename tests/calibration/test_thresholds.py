"""Thresholds of activations: against raw data, hand-worked cases and literal loops."""

import numpy as np
import pytest
import torch
from helpers.histograms import activations, observed
from numpy.typing import NDArray

from gar_edge.calibration.histogram import ROWS, ChannelHistogram, LinearHistogram
from gar_edge.calibration.thresholds import (
    SMALLEST,
    Calibrator,
    entropy_threshold,
    mse_threshold,
    percentile_threshold,
    threshold,
)

Counts = NDArray[np.float64]


def samples(name: str, count: int = 20000) -> Counts:
    """Magnitudes of one tensor."""
    random = np.random.default_rng(3)
    values = {
        "laplace": lambda: random.laplace(size=count),
        "normal": lambda: random.normal(size=count),
        "bimodal": lambda: np.concatenate([random.normal(size=count), random.normal(6, 0.3, size=count // 4)]),
        "outliers": lambda: np.concatenate([random.normal(size=count), random.uniform(20, 60, size=count // 500)]),
        "half of it zero": lambda: np.maximum(random.normal(size=count), 0),
    }[name]()
    return np.abs(values)


SHAPES = ("laplace", "normal", "bimodal", "outliers", "half of it zero")


def histogram_of(magnitudes: Counts, bins: int) -> LinearHistogram:
    top = float(magnitudes.max())
    return LinearHistogram(np.histogram(magnitudes, bins, (0, top))[0].astype(np.float64), top)


@pytest.mark.parametrize("calibrator", Calibrator)
def test_zeros_give_a_small_threshold(calibrator: Calibrator) -> None:
    assert threshold(observed(torch.zeros(3, 2)).linear(), calibrator) == SMALLEST
    assert threshold(ChannelHistogram(2).linear(), calibrator) == SMALLEST
    assert np.float16(1) / np.float16(SMALLEST / 127) == np.float16(2**14)


@pytest.mark.parametrize("calibrator", Calibrator)
def test_thresholds_scale_with_the_data(calibrator: Calibrator) -> None:
    counts = histogram_of(samples("laplace"), 512).counts
    one, ten = (threshold(LinearHistogram(counts, top), calibrator) for top in (1.0, 10.0))
    assert 0 < one <= 1
    assert ten == pytest.approx(10 * one, rel=1e-12)


def test_min_max_is_the_top() -> None:
    assert threshold(LinearHistogram(np.array([5.0, 0, 1]), 7.5), Calibrator.MINMAX) == 7.5


@pytest.mark.parametrize(
    ("counts", "percent", "expected"),
    [
        ([10] * 10, 95, 9.5),
        ([10] * 10, 90, 9),
        ([10] * 10, 100, 10),
        ([6, 0, 0, 2], 75, 1),  # 6 of 8, all in the first bin
        ([6, 0, 0, 2], 87.5, 3.5),
    ],
)
def test_percentiles(counts: list[float], percent: float, expected: float) -> None:
    histogram = LinearHistogram(np.array(counts, np.float64), float(len(counts)))
    assert percentile_threshold(histogram, percent) == pytest.approx(expected, rel=1e-12)


def test_the_percentile_is_99_99() -> None:
    histogram = LinearHistogram(np.array([9998.0, 2, 0, 0]), 4.0)
    assert threshold(histogram, Calibrator.PERCENTILE) == pytest.approx(1.5, rel=1e-9)


def rounding_error(magnitudes: Counts, top: float, levels: int) -> float:
    """Mean squared error of rounding samples to `levels` levels from 0 to top."""
    step = top / (levels - 1)
    return float(np.mean((np.minimum(np.rint(magnitudes / step), levels - 1) * step - magnitudes) ** 2))


@pytest.mark.parametrize("levels", [8, 128])
@pytest.mark.parametrize("name", SHAPES)
def test_least_squares_are_least_of_real_errors(name: str, levels: int) -> None:
    magnitudes = samples(name)
    histogram = histogram_of(magnitudes, 1024)
    best = min(rounding_error(magnitudes, top, levels) for top in np.linspace(0, histogram.top, 257)[1:])
    chosen = mse_threshold(histogram, levels)
    assert rounding_error(magnitudes, chosen, levels) <= 1.02 * best


def test_least_squares_by_hand() -> None:
    # Two levels, 0 and t; all lies evenly in [0, 1) and [9, 10). [0, 1) becomes zero unless t = 1 and costs 1/3;
    # [9, 10) costs a step's 100/12 for t = 10, 1/3 clipped at t = 9, 7/3 at t = 8, and so on.
    histogram = LinearHistogram(np.array([1.0] + [0.0] * 8 + [1.0]), 10.0)

    def cost(t: int) -> float:
        near = 1 / 3 if t > 1 else (1 / 8 / 3 + 1 / 2 / 12)
        far = ((10 - t) ** 3 - (9 - t) ** 3) / 3 if t < 10 else 100 / 12
        return near + far

    assert mse_threshold(histogram, levels=2) == min(range(1, 11), key=cost) == 9


def expanded(counts: Counts, levels: int) -> Counts:
    """The slides' candidate distribution: merged into levels, expanded again over the bins that are not empty."""
    q = np.zeros(len(counts))
    for level in range(levels):
        members = [j for j in range(len(counts)) if j * levels // len(counts) == level]
        filled = [j for j in members if counts[j]]
        for j in filled:
            q[j] = sum(counts[member] for member in members) / len(filled)
    return q


def entropy_bins(counts: Counts, levels: int) -> int:
    """The slides' search, word for word: how many bins are kept."""
    divergence = {}
    for i in range(levels, len(counts) + 1):
        p = counts[:i].copy()
        p[i - 1] += counts[i:].sum()
        q = expanded(counts[:i], levels)
        p, q = p / p.sum(), q / q.sum() if q.any() else q
        with np.errstate(divide="ignore"):
            divergence[i] = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a)
    return min(divergence, key=lambda i: divergence[i])


def test_the_slides_example_expands() -> None:
    assert expanded(np.array([1.0, 0, 2, 3, 5, 3, 1, 7]), 2).tolist() == [2, 0, 2, 2, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("counts", "kept"),
    [
        # i = 2: P 4 4, Q 4 2: 0.0589. i = 3: P 4 2 2, Q 3 3 1: 0.0822. i = 4: P 4 2 1 1, Q 3 3 1 1: 0.0425.
        ([4, 2, 1, 1], 4),
        # i = 2: P 4 3, Q 4 2: 0.0196. i = 3: infinite, the last bin is empty. i = 4: P 4 2 0 1, Q 3 3 0 1: 0.0485.
        ([4, 2, 0, 1], 2),
        # Nothing but the last bin.
        ([0, 0, 0, 3], 4),
    ],
)
def test_entropy_by_hand(counts: list[float], kept: int) -> None:
    histogram = LinearHistogram(np.array(counts, np.float64), 4.0)
    assert entropy_threshold(histogram, levels=2) == kept == entropy_bins(histogram.counts, 2)


@pytest.mark.parametrize(("bins", "levels"), [(200, 16), (256, 64), (150, 128)])
@pytest.mark.parametrize("name", SHAPES)
def test_entropy_is_that_of_the_slides(name: str, bins: int, levels: int) -> None:
    histogram = histogram_of(samples(name), bins)
    expected = entropy_bins(histogram.counts, levels) * histogram.width
    assert entropy_threshold(histogram, levels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_entropy_of_gaps_and_fractions(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.exponential(np.exp(-np.arange(160) / 20)) * (random.uniform(size=160) < 0.7)
    counts[-1] = 1e-4
    histogram = LinearHistogram(counts, 160.0)
    assert entropy_threshold(histogram, 32) == entropy_bins(counts, 32)


def test_entropy_of_what_was_observed() -> None:
    histogram = observed(activations(ROWS, 32)).linear(bins=200)
    expected = entropy_bins(histogram.counts, 64) * histogram.width
    assert entropy_threshold(histogram, 64) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("calibrator", [Calibrator.PERCENTILE, Calibrator.MSE])
@pytest.mark.parametrize("name", SHAPES)
def test_logarithmic_bins_hardly_move_thresholds(name: str, calibrator: Calibrator) -> None:
    magnitudes = np.random.default_rng(0).permutation(samples(name))[: 64 * ROWS // 2]
    x = torch.from_numpy(magnitudes).float().view(-1, 64)
    expected = threshold(histogram_of(magnitudes, 2048), calibrator)
    assert threshold(observed(x).linear(), calibrator) == pytest.approx(expected, rel=0.04)


def test_too_few_bins_are_all_kept() -> None:
    assert threshold(LinearHistogram(np.array([3.0, 0, 2]), 6.0), Calibrator.ENTROPY) == 6
