"""Activation statistics and thresholds: against raw data, hand-worked cases and literal loops."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gar_edge.calibration.histogram import BINS, RESERVOIR, ROWS, ChannelHistogram, LinearHistogram
from gar_edge.calibration.thresholds import (
    SMALLEST,
    Calibrator,
    entropy_threshold,
    mse_threshold,
    percentile_threshold,
    threshold,
)
from gar_edge.runtime.errors import GarCalibrationError

Counts = NDArray[np.float64]


def observed(x: torch.Tensor, pieces: tuple[int, ...] = (), seed: int = 0) -> ChannelHistogram:
    """Statistics of x [N, C], shown in pieces that begin at these rows."""
    histogram = ChannelHistogram(x.shape[1], seed)
    for piece in x.tensor_split(pieces):
        histogram.observe(piece)
    return histogram


def activations(rows: int, channels: int, seed: int = 0) -> torch.Tensor:
    """Normal values whose spread differs by channel, up to 50 times."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(-1, 0.7, channels)
    return torch.randn(rows, channels, generator=generator) * spread


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


# --- what is gathered


def test_maxima_are_exact_over_rows_that_are_not_counted() -> None:
    x = activations(5 * ROWS, 7)
    histogram = observed(x)
    torch.testing.assert_close(histogram.amax, x.abs().amax(0), rtol=0, atol=0)
    assert histogram.counts.sum(1).tolist() == [ROWS] * 7
    assert histogram.seen == len(x)


def test_pieces_count_like_the_whole() -> None:
    x = activations(ROWS, 9)
    whole, pieces = observed(x), observed(x, (1, 2, 100, 300, 300))
    assert torch.equal(whole.counts, pieces.counts)
    assert torch.equal(whole.amax, pieces.amax)
    assert whole.seen == pieces.seen == ROWS


def test_bins_are_eight_an_octave() -> None:
    x = torch.tensor([0.0, 2.0**-13, 2.0**-12, 1.0, -1.124, 1.125, 60000.0, -61440.0, 1e30])
    one = 1 + 12 * 8
    expected = [0, 0, 1, one, one, one + 1, BINS - 2, BINS - 1, BINS - 1]
    counts = observed(x[:, None]).counts[0]
    assert counts.tolist() == np.bincount(expected, minlength=BINS).tolist()


def test_channels_are_counted_apart() -> None:
    counts = observed(torch.tensor([[1.0, 0.0], [1.0, 2.0]])).counts
    assert [row.nonzero().flatten().tolist() for row in counts] == [[97], [0, 105]]
    assert counts.dtype == torch.int32


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (float("inf"), "inf"), (-float("inf"), "inf")])
def test_values_that_are_not_finite_are_refused(value: float, shown: str) -> None:
    histogram = observed(activations(10, 4))
    before = histogram.counts.clone(), histogram.amax.clone(), histogram.rows.clone()
    x = activations(10, 4)
    x[6, 2] = value
    message = rf"^blocks\.3\.fc2: activation is not finite for sample astronaut \(channel 2: {shown}\); [^\n]+$"
    with pytest.raises(GarCalibrationError, match=message):
        histogram.observe(x, "blocks.3.fc2", "astronaut")
    for old, new in zip(before, (histogram.counts, histogram.amax, histogram.rows), strict=True):
        assert torch.equal(old, new)


def test_half_precision_and_no_rows_are_taken() -> None:
    x = activations(20, 4).half()
    histogram = observed(x, (0, 10, 10))
    assert torch.equal(histogram.amax, x.float().abs().amax(0))
    assert torch.equal(histogram.rows, x.float())


def test_memory_does_not_grow() -> None:
    def size(histogram: ChannelHistogram) -> int:
        return sum(value.nbytes for value in vars(histogram).values() if isinstance(value, torch.Tensor))

    histogram = ChannelHistogram(6)
    before = size(histogram)
    for seed in range(20):
        histogram.observe(activations(300, 6, seed))
    assert size(histogram) == before
    assert histogram.rows.shape == (RESERVOIR, 6)


# --- the reservoir


def test_the_reservoir_keeps_few_rows_as_they_are() -> None:
    x = activations(RESERVOIR, 3)
    assert torch.equal(observed(x, (7, 50)).rows, x)


@pytest.mark.parametrize("pieces", [(), (1, 100, 255, 700, 3000)])
def test_the_reservoir_is_uniform(pieces: tuple[int, ...]) -> None:
    rows, ranges, trials = 4096, 16, 60
    x = torch.arange(rows, dtype=torch.float32)[:, None]
    hits = torch.zeros(ranges)
    for seed in range(trials):
        kept = observed(x, pieces, seed).rows.flatten()
        assert len(kept.unique()) == RESERVOIR
        hits += torch.bincount((kept * ranges / rows).long(), minlength=ranges)
    expected = trials * RESERVOIR / ranges
    # Chi-squared of 15 degrees of freedom exceeds 37.7 once in 1000 times.
    assert float(((hits - expected) ** 2 / expected).sum()) < 37.7


def test_the_reservoir_can_be_repeated() -> None:
    x = activations(1000, 2)
    assert torch.equal(observed(x, seed=5).rows, observed(x, seed=5).rows)
    assert not torch.equal(observed(x, seed=5).rows, observed(x, seed=6).rows)


# --- one histogram of all channels


def test_a_logarithmic_bin_is_spread_evenly() -> None:
    # 2.0 and 2.2 lie in [2, 2.25), which two linear bins of 1/8 share; nothing of 4's bin lies above 4.
    histogram = observed(torch.tensor([[2.0], [2.2], [-4.0]])).linear(bins=32)
    expected = np.zeros(32)
    expected[[16, 17, 31]] = 1
    np.testing.assert_allclose(histogram.counts, expected, atol=1e-12)
    assert histogram.top == 4
    assert histogram.width == 1 / 8


@pytest.mark.parametrize(
    ("bins", "expected"),
    [
        (10, {5: 2}),  # [5, 5.625)
        (20, {10: 1.6, 11: 0.4}),  # [10, 11.25)
        (75, {37: 0.64 / 3, **dict.fromkeys(range(38, 42), 1.28 / 3), 42: 0.08}),  # [37.5, 42.1875)
    ],
)
def test_linear_bins_get_their_fractions(bins: int, expected: dict[int, float]) -> None:
    # 2.0 and 2.1 lie in [2, 2.25), which becomes the intervals above.
    counts = observed(torch.tensor([[2.0], [2.1], [4.0]])).linear(bins=bins).counts
    assert counts[-1] == 1
    assert {i: counts[i] for i in counts[:-1].nonzero()[0]} == pytest.approx(expected, rel=1e-12)


def test_scales_apply_by_channel() -> None:
    histogram = observed(torch.tensor([[1.0, 4.0], [1.0, 4.0]]))
    assert histogram.linear(bins=4).counts.tolist() == [0, 2, 0, 2]
    assert histogram.linear(torch.tensor([0.5, 2.0]), bins=4).counts.tolist() == [0, 0, 0, 4]
    assert histogram.linear(torch.tensor([0.5, 8.0]), bins=4).counts.tolist() == [0, 2, 0, 2]
    assert histogram.linear(torch.tensor([0.5, 8.0])).top == 2


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("bins", [100, 2048])
def test_raw_data_is_distributed_alike(scaled: bool, bins: int) -> None:
    x = activations(ROWS, 64)
    scale = torch.logspace(-1, 1, 64).flip(0) if scaled else None
    magnitudes = (x.double() / (1 if scale is None else scale.double())).abs().numpy()
    histogram = observed(x).linear(scale, bins)
    assert histogram.top == pytest.approx(magnitudes.max(), rel=1e-12)
    assert histogram.counts.sum() == pytest.approx(magnitudes.size, rel=1e-12)
    assert histogram.counts.min() >= 0
    raw, _ = np.histogram(magnitudes, bins, (0, magnitudes.max()))
    # A logarithmic bin's width is at most 1/8 of its magnitude; within it the true density is not even.
    assert np.abs(np.cumsum(histogram.counts - raw)).max() < 0.005 * magnitudes.size


def test_values_outside_the_bins_keep_their_mass() -> None:
    histogram = observed(torch.tensor([[1e-6, 1e6], [1e-7, 70000.0]])).linear()
    assert histogram.top == 1e6
    assert histogram.counts.sum() == pytest.approx(4, rel=1e-12)
    assert histogram.counts[0] == 2
    assert histogram.counts[-1] > 0


def test_empty_bins_stay_empty() -> None:
    x = torch.cat([activations(ROWS - 1, 16).abs().clamp(max=1), torch.full((1, 16), 10.0)])
    counts = observed(x).linear(bins=2048).counts
    assert not counts[231:2040].any()  # above 1.125, the end of 1's bin, and below 10, where it is all of a bin
    assert counts[:205].all()


# --- thresholds


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
