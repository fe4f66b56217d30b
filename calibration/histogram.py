"""Statistics of a linear layer's input, gathered while a model runs, in memory that does not grow with its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gar_edge.runtime.errors import GarCalibrationError

ROWS = 512  # rows of one sample in one call that a histogram counts, at most
RESERVOIR = 256  # rows kept, at most
MANTISSA_BITS = 3  # of a float32, kept by a bin's number: 8 bins an octave
LOWEST, HIGHEST = -12, 16  # exponents of 2: magnitudes below share the first bin, those above the last
SHIFT = 23 - MANTISSA_BITS
ORIGIN = ((LOWEST + 127) << MANTISSA_BITS) - 1  # shifted bits of a float32 minus this: its bin
BINS = ((HIGHEST - LOWEST) << MANTISSA_BITS) + 1


@dataclass(frozen=True)
class LinearHistogram:
    """How often magnitudes occur: `counts` float64 [bins], not whole numbers, of equal bins over [0, top]."""

    counts: NDArray[np.float64]
    top: float

    @property
    def width(self) -> float:
        """Of one bin."""
        return self.top / len(self.counts)


class ChannelHistogram:
    """Statistics of activations [N, C], kept on the CPU wherever the activations are.

    `amax` float32 [C]: each channel's largest magnitude, of every row seen. `counts` int32 [C, BINS]: magnitudes in
    logarithmic bins, of evenly spaced rows, at most `counted` of a sample and call. `rows` float32 [K, C], K up to
    `RESERVOIR`: a uniform sample of every row seen, early ones in front (for fewer take every n-th); `seed` makes it
    repeatable. `seen`: how many rows that were.
    """

    def __init__(self, channels: int, seed: int = 0, counted: int = ROWS) -> None:
        self.seen = 0
        self._counted = counted
        self.amax = torch.zeros(channels)
        self.counts = torch.zeros(channels, BINS, dtype=torch.int32)
        self._first_bin = torch.arange(channels, dtype=torch.int32) * BINS
        self._reservoir = torch.empty(RESERVOIR, channels)
        self._random = torch.Generator().manual_seed(seed)

    @property
    def rows(self) -> Tensor:
        return self._reservoir[: self.seen]

    def observe(self, x: Tensor, tensor: str = "", samples: str | Sequence[tuple[str, int]] = "") -> None:
        """Take in activations [N, C] of any float type; `tensor` and `samples` say in errors where they come from.

        samples: whose rows those are, one sample behind the other, and how many of each; a name alone has them all.

        Raises GarCalibrationError on NaN and infinity; nothing of `x` is taken in then.
        """
        if not len(x):
            return
        owners = [(samples, len(x))] if isinstance(samples, str) else samples
        x = x.detach().float()
        magnitudes = x.abs()
        peaks = magnitudes.amax(dim=0).cpu()
        if not peaks.isfinite().all():
            row = int(magnitudes.isfinite().logical_not().any(dim=1).nonzero()[0])
            channel = int(magnitudes[row].isfinite().logical_not().nonzero()[0])
            raise GarCalibrationError(
                f"{tensor}: activation is not finite for sample {_owner(owners, row)} "
                f"(channel {channel}: {float(magnitudes[row, channel])}); "
                "leave the sample out, or check the checkpoint's weights"
            )
        torch.maximum(self.amax, peaks, out=self.amax)
        self._count(_evenly(magnitudes, owners, self._counted).cpu())
        self._keep(x)

    def _count(self, magnitudes: Tensor) -> None:
        bins = (magnitudes.view(torch.int32) >> SHIFT).sub_(ORIGIN).clamp_(0, BINS - 1)
        counts = torch.bincount(bins.add_(self._first_bin).flatten(), minlength=self.counts.numel())
        self.counts += counts.view_as(self.counts)

    def _keep(self, x: Tensor) -> None:
        """Algorithm R (Vitter, "Random sampling with a reservoir", 1985): the t-th row replaces a random one of t."""
        order = torch.arange(len(x))
        place = self.seen + order
        drawn = (torch.rand(len(x), generator=self._random, dtype=torch.float64) * (place + 1)).long()
        slot = torch.where(place < RESERVOIR, place, drawn)
        order, slot = order[slot < RESERVOIR], slot[slot < RESERVOIR]
        # Of rows that take the same slot the last one stays.
        latest = torch.full((RESERVOIR,), -1).scatter_reduce_(0, slot, order, "amax")
        taken = latest >= 0
        self._reservoir[taken] = x[latest[taken].to(x.device)].cpu()
        self.seen += len(x)

    def linear(self, scale: Tensor | None = None, bins: int = 2048) -> LinearHistogram:
        """The magnitudes of x / scale over all channels, in `bins` equal bins up to the exact largest one.

        scale: positive [C]; None is ones. What a logarithmic bin counts is spread evenly over the magnitudes that it
        stands for, at most its channel's largest. With nothing but zeros seen, `top` is 0 and the first bin has all.
        """
        unscaled = self.amax.double().numpy()  # [C]
        inverse = np.ones_like(unscaled) if scale is None else 1 / scale.detach().cpu().double().numpy()
        top = float((unscaled * inverse).max())
        counts = self.counts.numpy()
        if top == 0:
            return LinearHistogram(np.append(float(counts.sum()), np.zeros(bins - 1)), top)
        channel, bin_ = counts.nonzero()  # [E] each
        mass = counts[channel, bin_].astype(np.float64)
        edges = _edges()
        end = np.where(bin_ == BINS - 1, np.inf, edges[bin_ + 1])
        unit = inverse[channel] * (bins / top)
        lower = edges[bin_] * unit  # in linear bins
        upper = np.minimum(end, unscaled[channel]) * unit
        return LinearHistogram(_spread(mass, lower, upper, bins), top)


def _evenly(rows: Tensor, owners: Sequence[tuple[str, int]], most: int) -> Tensor:
    """At most `most` of each owner's rows, evenly spaced."""
    if all(count <= most for _, count in owners):
        return rows
    parts = rows.split([count for _, count in owners])
    return torch.cat([part[:: -(-len(part) // most)] for part in parts if len(part)])


def _owner(owners: Sequence[tuple[str, int]], row: int) -> str:
    """Whose row that is."""
    for name, count in owners:
        if row < count:
            return name
        row -= count
    raise IndexError(row)


def _edges() -> NDArray[np.float64]:
    """The logarithmic bins' edges [BINS + 1]."""
    bits = (np.arange(BINS + 1, dtype=np.int32) + ORIGIN) << SHIFT
    edges = bits.view(np.float32).astype(np.float64)
    edges[0] = 0
    return edges


def _spread(
    mass: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64], bins: int
) -> NDArray[np.float64]:
    """Sum of uniform distributions of `mass` [E] over [lower, upper] [E] each, in `bins` bins of width 1."""
    first = np.minimum(lower.astype(np.int64), bins - 1)
    last = np.clip(upper.astype(np.int64), first, bins - 1)
    within = first == last
    counts = _sums(first[within], mass[within], bins)
    first, last, mass, lower, upper = (values[~within] for values in (first, last, mass, lower, upper))
    density = mass / (upper - lower)
    counts += _sums(first, (first + 1 - lower) * density, bins)
    counts += _sums(last, (upper - last) * density, bins)
    # Bins that are covered from edge to edge: differences, summed up.
    covers = np.cumsum(np.bincount(first + 1, minlength=bins) - np.bincount(last, minlength=bins))
    whole = last > first + 1
    first, last, density = first[whole], last[whole], density[whole]
    densities = np.cumsum(_sums(first + 1, density, bins) - _sums(last, density, bins))
    # Rounding leaves crumbs where nothing lies; a bin's being empty means something to calibrators.
    counts += np.where(covers > 0, densities, 0)
    return counts


def _sums(bin_: NDArray[np.int64], weights: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Sums of the weights [E] of each bin, [bins]."""
    return np.bincount(bin_, weights, bins).astype(np.float64, copy=False)
