"""How each site is quantised best: how far to smooth it, and with which activation range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gar_edge.calibration.choices import Calibrator
from gar_edge.calibration.float8 import float8_threshold, on_float8_grid
from gar_edge.calibration.histogram import ChannelHistogram, LinearHistogram
from gar_edge.calibration.plan import Scheme, SitePlan, weight_rounder
from gar_edge.calibration.rounding import block_of, int4_blocks, on_grid
from gar_edge.calibration.sites import HEAD, Site
from gar_edge.calibration.thresholds import threshold

ROWS = 128  # calibration rows on which a candidate is judged
JUDGED_COLUMNS = 1024  # of a site's widest weight, drawn at random; searching all of the 8B takes hours
SMOOTH_ALPHAS = (0.4, 0.5, 0.6, 0.7, 0.85)
AWQ_ALPHAS = (0.2, 0.35, 0.5, 0.65, 0.8)
LEAST = 1e-5  # relative to a vector's largest: channels that are never used are scaled like nearly unused ones
BINS = 2048


@dataclass(frozen=True)
class Search:
    """How sites are planned. `smooth` False leaves the float model as it is."""

    calibrator: Calibrator
    smooth: bool = True

    def plan(self, site: Site, statistics: ChannelHistogram, weights: Mapping[str, Tensor], scheme: Scheme) -> SitePlan:
        """The best of the candidates for one site; weights float32 by parameter name, [in, out] (the head [out, in]).

        Candidates are judged by the outputs' error on calibration rows, of wide weights by some outputs': SmoothQuant's
        s = amax(x)^a / amax(w)^(1-a) for int8, fp8 (Xiao et al. 2023), AWQ's s = mean|x|^a for int4 (Lin et al. 2024).
        """
        if not statistics.seen:
            return SitePlan(site, Scheme.FLOAT)
        matrices = [weight.T if name == HEAD else weight for name, weight in weights.items()]
        if scheme is Scheme.INT4 and block_of(site.channels) is None:
            scheme = Scheme.INT8
        rows = statistics.rows
        rows = rows[:: max(1, len(rows) // ROWS)]
        widest = _widest(matrices) if self.smooth and site.fold is not None and scheme.largest else None
        matrices = _some_columns(matrices)
        expected = [rows @ weight for weight in matrices]
        best = _judged(SitePlan(site, scheme), rows, matrices, expected)
        if self.smooth and site.fold is not None:
            alphas = SMOOTH_ALPHAS if scheme.largest else AWQ_ALPHAS
            for alpha in alphas:
                scale = site.fold.shared(_scale(statistics, widest, alpha))
                candidate = SitePlan(site, scheme, smooth=scale, alpha=alpha)
                candidate = _judged(candidate, rows, matrices, expected)
                best = max(best, candidate, key=lambda plan: plan.snr_db)
        return self._ranged(best, statistics, rows, matrices, expected)

    def _ranged(
        self, plan: SitePlan, statistics: ChannelHistogram, rows: Tensor, matrices: list[Tensor], expected: list[Tensor]
    ) -> SitePlan:
        """The plan with its final activation range, from all rows seen and not only the few it was chosen on."""
        histogram = statistics.linear(plan.smooth)
        plan = replace(plan, top=histogram.top)
        if plan.scheme is Scheme.INT4:
            return replace(plan, importance=_importance(statistics.rows, plan.smooth))
        return _judged(replace(plan, step=_step(histogram, self.calibrator, plan.scheme)), rows, matrices, expected)


def _step(histogram: LinearHistogram, calibrator: Calibrator, scheme: Scheme) -> float:
    """The scale of an activation, by the scheme's own way to choose its range."""
    choose = float8_threshold if scheme is Scheme.FP8 else threshold
    return as_half(choose(histogram, calibrator) / scheme.largest)


def as_half(step: float) -> float:
    """A scale that float16 and float32 graphs hold alike."""
    return float(np.clip(np.float16(step), np.finfo(np.float16).tiny, np.finfo(np.float16).max))


def _widest(matrices: list[Tensor]) -> Tensor:
    """The largest weight of each input channel, [in]."""
    return torch.stack([weight.abs().amax(dim=1) for weight in matrices]).amax(dim=0)


def _some_columns(matrices: list[Tensor]) -> list[Tensor]:
    """A fixed share of every [in, out], an even number at most `JUDGED_COLUMNS` wide; the same at every call."""
    share = JUDGED_COLUMNS / max(weight.shape[1] for weight in matrices)
    if share >= 1:
        return matrices
    drawn = []
    for weight in matrices:
        columns = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0))
        drawn.append(weight[:, columns[: max(2, round(weight.shape[1] * share / 2) * 2)].sort().values])
    return drawn


def _scale(statistics: ChannelHistogram, widest: Tensor | None, alpha: float) -> Tensor:
    """By how much each input channel [in] is divided; widest: from `_widest`, which int4 does not ask for."""
    if widest is None:
        scale = _floored(statistics.rows.abs().mean(dim=0)) ** alpha
    else:
        scale = _floored(statistics.amax) ** alpha / _floored(widest) ** (1 - alpha)
    # Centred on 1, so that float16 holds the folded norm as well as the plain one; 2^-6…2^6 keeps it there.
    return (scale / (scale.max() * scale.min()).sqrt()).clamp(2.0**-6, 2.0**6)


def _floored(x: Tensor) -> Tensor:
    largest = x.max()
    return x.clamp(min=float(largest) * LEAST) if largest > 0 else torch.ones_like(x)


def _importance(rows: Tensor, smooth: Tensor | None) -> Tensor:
    scaled = rows if smooth is None else rows / smooth
    return (scaled**2).mean(dim=0)


def _judged(plan: SitePlan, rows: Tensor, matrices: list[Tensor], expected: list[Tensor]) -> SitePlan:
    """The plan with its outputs' signal-to-noise ratio on some rows; one without a step gets the rows' own best."""
    inputs = rows if plan.smooth is None else rows / plan.smooth
    importance = _importance(rows, plan.smooth)
    if plan.scheme.largest:
        step = plan.step or _step(_histogram(inputs), Calibrator.MSE, plan.scheme)
        inputs = (on_float8_grid if plan.scheme is Scheme.FP8 else on_grid)(inputs, step)
    rounder = weight_rounder(plan.scheme)
    signal = noise = 0.0
    for weight, wanted in zip(matrices, expected, strict=True):
        scaled = weight if plan.smooth is None else weight * plan.smooth[:, None]
        block = block_of(len(scaled)) if plan.scheme is Scheme.INT4 else None
        rounded = rounder(scaled, 1) if block is None else int4_blocks(scaled, block, importance)
        signal += float((wanted**2).sum())
        noise += float(((inputs @ rounded.dequantised() - wanted) ** 2).sum())
    return replace(plan, snr_db=10 * float(np.log10(max(signal, 1e-30) / max(noise, 1e-30))))


def _histogram(x: Tensor) -> LinearHistogram:
    magnitudes = x.abs()
    top = float(magnitudes.max())
    counts = torch.histc(magnitudes, BINS, 0, max(top, 1e-30))
    return LinearHistogram(counts.double().numpy(), top)
