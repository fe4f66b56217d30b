"""Activation statistics: against raw data and hand-worked cases."""

import numpy as np
import pytest
import torch
from helpers.histograms import activations, observed

from gar_edge.calibration.histogram import BINS, RESERVOIR, ROWS, ChannelHistogram
from gar_edge.runtime.errors import GarCalibrationError

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


def test_of_several_samples_the_one_that_is_not_finite_is_named() -> None:
    x = activations(10, 4)
    x[6, 1] = float("nan")
    with pytest.raises(GarCalibrationError, match=r"for sample coffee \(channel 1: nan\)"):
        ChannelHistogram(4).observe(x, "fc2", [("astronaut", 6), ("coffee", 1), ("cat", 3)])


def test_samples_taken_in_together_count_as_one_by_one() -> None:
    """A long one is thinned out, whoever is beside it."""
    parts = {"a": activations(3, 4), "b": activations(2 * ROWS + 1, 4, 1), "c": activations(ROWS, 4, 2)}
    together, alone = ChannelHistogram(4), ChannelHistogram(4)
    together.observe(torch.cat(list(parts.values())), "fc2", [(name, len(part)) for name, part in parts.items()])
    for name, part in parts.items():
        alone.observe(part, "fc2", name)
    assert together.seen == alone.seen == sum(map(len, parts.values()))
    assert torch.equal(together.counts, alone.counts)
    assert torch.equal(together.amax, alone.amax)


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
