"""Which magnitude int8's 127 shall stand for: four ways to choose it from a histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gar_edge.calibration.choices import Calibrator
from gar_edge.calibration.histogram import LinearHistogram

LEVELS = 128  # magnitudes of an int8
SMALLEST = (LEVELS - 1) * 2.0**-14  # its scale, and the scale's reciprocal, are normal numbers in half precision too


def threshold(histogram: LinearHistogram, calibrator: Calibrator) -> float:
    """The magnitude that int8's 127 shall stand for; larger ones are clipped. The scale is this / 127.

    `SMALLEST` where the histogram holds nothing but zeros, or nothing at all.
    """
    if histogram.top == 0 or not histogram.counts.any():
        return SMALLEST
    choose = {
        Calibrator.MINMAX: minmax_threshold,
        Calibrator.PERCENTILE: percentile_threshold,
        Calibrator.MSE: mse_threshold,
        Calibrator.ENTROPY: entropy_threshold,
    }[calibrator]
    return choose(histogram)


def minmax_threshold(histogram: LinearHistogram) -> float:
    """The largest magnitude: nothing is clipped."""
    return histogram.top


def percentile_threshold(histogram: LinearHistogram, percent: float = 99.99) -> float:
    """The magnitude that `percent` (above 0, up to 100) of all do not exceed, magnitudes lying evenly in a bin."""
    reached = np.cumsum(histogram.counts)
    wanted = reached[-1] * (percent / 100)
    found = int(np.searchsorted(reached, wanted))
    beyond = float((reached[found] - wanted) / histogram.counts[found])
    return (found + 1 - beyond) * histogram.width


def mse_threshold(histogram: LinearHistogram, levels: int = LEVELS) -> float:
    """The bin's edge t with the least mean squared error, for a step s = t / (levels - 1) and values even in a bin.

    A magnitude x costs x² below s / 2, where it becomes zero; s² / 12, the mean over a step, up to t; and (x - t)²
    above t.
    """
    counts = histogram.counts
    at = np.arange(len(counts) + 1.0)  # edges, in bins
    low, high = at[:-1], at[1:]
    firsts = counts * (low + high) / 2  # moments, by bin
    seconds = counts * (high**3 - low**3) / 3
    step = high / (levels - 1)

    inner = step / 2
    bin_ = inner.astype(np.int64)
    mass_inside = np.cumsum(counts) - counts
    seconds_inside = np.cumsum(seconds) - seconds
    zeroed = mass_inside[bin_] + counts[bin_] * (inner - bin_)
    zero_error = seconds_inside[bin_] + counts[bin_] * (inner**3 - bin_**3) / 3

    outside, firsts_outside, seconds_outside = (_tail(values)[1:] for values in (counts, firsts, seconds))
    clip_error = seconds_outside - 2 * high * firsts_outside + high**2 * outside
    round_error = (counts.sum() - outside - zeroed) * step**2 / 12
    return float(high[np.argmin(zero_error + round_error + clip_error)]) * histogram.width


def entropy_threshold(histogram: LinearHistogram, levels: int = LEVELS) -> float:
    """TensorRT's entropy calibration: Migacz, "8-bit inference with TensorRT", GTC 2017, slide "pseudocode".

    For every i from `levels` to all bins: P is the first i bins, with all that lies beyond added to the last; Q is the
    same bins without that, merged into `levels` levels (bin j into level j * levels // i) and expanded again, each
    level spread over those of its bins that are not empty. The i with the least Kullback-Leibler divergence of Q from
    P, both normalised, wins; the first of equals. An i whose last bin is empty, with values beyond, has an infinite
    one. Two details are as in NVIDIA's pytorch-quantization, not as on the slide: all bins are a candidate too, and
    the threshold is the kept bins' upper edge, not half a bin above it.

    With h the counts, N their sum, S that of the first i, and m the count and n the non-empty bins of a level,
    N KL = sum of P log P - sum of m log(m / n) - beyond * log(m / n of the last level) + N log S - N log N,
    and all sums over bins are differences of running ones.
    """
    counts = histogram.counts
    sizes = np.arange(min(levels, len(counts)), len(counts) + 1)  # [I], the candidates
    borders = -(-sizes[:, None] * np.arange(levels + 1) // levels)  # [I, levels + 1], each level's first bin
    # Summed from the far end, where counts are small and must not drown in the sum of the rest.
    tail, filled_tail = _tail(counts), _tail((counts > 0).astype(np.float64))
    mass = tail[borders[:, :-1]] - tail[borders[:, 1:]]  # [I, levels]
    filled = filled_tail[borders[:, :-1]] - filled_tail[borders[:, 1:]]
    level_log = _log(mass / np.maximum(filled, 1))
    beyond, last = tail[sizes], counts[sizes - 1]

    own = np.cumsum(counts * _log(counts))[sizes - 1]
    own += (last + beyond) * _log(last + beyond) - last * _log(last)
    cross = (mass * level_log).sum(axis=1) + beyond * level_log[:, -1]
    divergence = own - cross + tail[0] * _log(tail[0] - beyond)
    divergence[(last == 0) & (beyond > 0)] = np.inf
    return float(sizes[np.argmin(divergence)]) * histogram.width


def _tail(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of values[i:] for every i from 0 to the length of `values`, [n + 1]."""
    return np.append(np.cumsum(values[::-1])[::-1], 0)


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithms, and 0 where a value is 0: its product with that is 0 in the limit."""
    return np.log(values, where=values > 0, out=np.zeros_like(values))
