"""Choosing ranges, smoothing and rounding per site, against the products they stand for."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.calibrating import gaussian
from torch import Tensor

from gar_edge.calibration.choices import Calibrator
from gar_edge.calibration.histogram import ChannelHistogram
from gar_edge.calibration.plan import Scheme, SitePlan
from gar_edge.calibration.rounding import int4_blocks
from gar_edge.calibration.search import Search
from gar_edge.calibration.sites import HEAD, Fold, Site

CHANNELS = 64
FEW = 200  # rows, all of which a plan is judged on


def outlying(rows: int = 400, seed: int = 0, channels: int = CHANNELS) -> Tensor:
    """Activations of which three channels are far larger than the rest."""
    scale = torch.ones(channels)
    scale[[3, 17, channels - 1]] = torch.tensor([40.0, 80.0, 60.0])
    return gaussian(rows, channels, seed=seed) * scale


def statistics_of(x: Tensor) -> ChannelHistogram:
    statistics = ChannelHistogram(x.shape[1])
    statistics.observe(x)
    return statistics


def foldable(channels: int = CHANNELS, linears: tuple[str, ...] = ("fc1",)) -> Site:
    return Site(linears[0], linears, "fc1", channels, Fold(("norm.weight",)))


def decibels(found: np.ndarray, wanted: np.ndarray) -> float:
    return 10 * math.log10((wanted**2).sum() / ((found - wanted) ** 2).sum())


def computed(plan: SitePlan, x: Tensor, weight: Tensor) -> np.ndarray:
    """The planned int8 product in NumPy, from the formulas alone."""
    smooth = np.ones(x.shape[1], np.float32) if plan.smooth is None else plan.smooth.numpy()
    inputs = np.clip(np.rint(x.numpy() / smooth / np.float32(plan.step)), -128, 127)
    weights = weight.numpy() * smooth[:, None]
    scale = (np.abs(weights).max(axis=0) / 127).astype(np.float16).astype(np.float64)
    return (inputs @ np.clip(np.rint(weights / scale), -127, 127)) * plan.step * scale


def test_smoothing_helps_where_channels_stand_out() -> None:
    x, weight = outlying(FEW), gaussian(CHANNELS, 32, seed=5) * 0.05
    statistics = statistics_of(x)
    smooth, plain = (
        Search(Calibrator.MSE, wanted).plan(foldable(), statistics, {"fc1.weight": weight}, Scheme.INT8)
        for wanted in (True, False)
    )
    assert (plain.smooth, plain.alpha) == (None, 0)
    assert smooth.smooth is not None
    assert (smooth.smooth > 0).all()
    assert smooth.snr_db > plain.snr_db + 3
    ratios = {}
    for rows in (x, outlying(4000, seed=9)):
        wanted = (rows @ weight).numpy().astype(np.float64)
        ratios[len(rows)] = [decibels(computed(plan, rows, weight), wanted) for plan in (smooth, plain)]
    assert ratios[FEW] == pytest.approx([smooth.snr_db, plain.snr_db], abs=0.05)
    assert ratios[4000][0] > ratios[4000][1] + 3  # on rows that it was not chosen on
    # The outliers lost the most of their range, and the ranges after it are what the plan says.
    assert set(smooth.smooth.topk(3).indices.tolist()) == {3, 17, CHANNELS - 1}
    assert smooth.top == pytest.approx(float((statistics.amax / smooth.smooth).max()), rel=1e-5)


def test_nothing_is_smoothed_without_a_fold() -> None:
    site = replace(foldable(), fold=None)
    weights = {"fc1.weight": gaussian(CHANNELS, 32)}
    assert Search(Calibrator.MSE).plan(site, statistics_of(outlying()), weights, Scheme.INT8).smooth is None


def test_one_scale_serves_every_linear_of_a_site() -> None:
    site = foldable(linears=("q_proj", "k_proj", "v_proj"))
    weights = {f"{name}.weight": gaussian(CHANNELS, 16, seed=i) * 10.0**i for i, name in enumerate(site.linears)}
    x = outlying(FEW, seed=9)
    plan = Search(Calibrator.MSE).plan(site, statistics_of(x), weights, Scheme.INT8)
    assert plan.smooth is not None
    found = [computed(plan, x, weight) for weight in weights.values()]
    wanted = [(x @ weight).numpy().astype(np.float64) for weight in weights.values()]
    assert min(decibels(*pair) for pair in zip(found, wanted, strict=True)) > 25
    ratio = decibels(np.concatenate(found, axis=1), np.concatenate(wanted, axis=1))
    assert ratio == pytest.approx(plan.snr_db, abs=0.05)


def test_the_heads_rows_are_its_outputs() -> None:
    site = Site(HEAD, (HEAD,), HEAD, CHANNELS, Fold(("norm.weight",)))
    weight, statistics = gaussian(200, CHANNELS), statistics_of(outlying())
    plan = Search(Calibrator.MSE).plan(site, statistics, {HEAD: weight}, Scheme.INT8)
    same = Search(Calibrator.MSE).plan(foldable(), statistics, {"fc1.weight": weight.T}, Scheme.INT8)
    assert (plan.snr_db, plan.step, plan.alpha) == (same.snr_db, same.step, same.alpha)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("calibrator", list(Calibrator))
@pytest.mark.parametrize("factor", [1e-7, 1e-3, 1.0, 1e3, 1e7])
def test_steps_are_float16_numbers(calibrator: Calibrator, factor: float) -> None:
    statistics = statistics_of(outlying() * factor)
    plan = Search(calibrator).plan(foldable(), statistics, {"fc1.weight": gaussian(CHANNELS, 8)}, Scheme.INT8)
    assert plan.step == float(np.float16(plan.step))
    assert np.finfo(np.float16).tiny <= plan.step < math.inf
    assert math.isfinite(plan.snr_db)


@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT4])
def test_what_was_never_seen_stays_float(scheme: Scheme) -> None:
    weights = {"fc1.weight": gaussian(CHANNELS, 8)}
    plan = Search(Calibrator.MSE).plan(foldable(), ChannelHistogram(CHANNELS), weights, scheme)
    assert plan.scheme is Scheme.FLOAT
    assert plan.smooth is None


@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT4])
@pytest.mark.parametrize("x", [torch.zeros(9, CHANNELS), outlying() * (torch.arange(CHANNELS) > 9)])
def test_silent_channels_are_planned_too(scheme: Scheme, x: Tensor) -> None:
    weights = {"fc1.weight": gaussian(CHANNELS, 8)}
    plan = Search(Calibrator.MSE).plan(foldable(), statistics_of(x), weights, scheme)
    assert not math.isnan(plan.snr_db)
    assert math.isfinite(plan.step)
    if plan.smooth is not None:
        assert plan.smooth.isfinite().all()
        assert (plan.smooth > 0).all()


def test_int4_where_no_block_divides_is_int8() -> None:
    weights, statistics = {"fc1.weight": gaussian(40, 8)}, statistics_of(outlying(channels=40))
    plan = Search(Calibrator.MSE).plan(foldable(40), statistics, weights, Scheme.INT4)
    assert plan.scheme is Scheme.INT8
    assert plan.step > 0


def test_int4_knows_which_rows_matter() -> None:
    x, weights = outlying(FEW), {"fc1.weight": gaussian(CHANNELS, 32)}
    smooth, plain = (
        Search(Calibrator.MSE, wanted).plan(foldable(), statistics_of(x), weights, Scheme.INT4)
        for wanted in (True, False)
    )
    assert smooth.scheme is plain.scheme is Scheme.INT4
    assert plain.step == smooth.step == 0
    assert smooth.snr_db > plain.snr_db
    for plan in (smooth, plain):
        scaled = x if plan.smooth is None else x / plan.smooth
        torch.testing.assert_close(plan.importance, (scaled**2).mean(dim=0))
        matrix = weights["fc1.weight"] * (1 if plan.smooth is None else plan.smooth[:, None])
        found = scaled @ int4_blocks(matrix, 64, plan.importance).dequantised()
        wanted = (x @ weights["fc1.weight"]).numpy().astype(np.float64)
        assert decibels(found.numpy(), wanted) == pytest.approx(plan.snr_db, abs=0.05)


def test_a_wide_layer_is_judged_on_some_of_its_outputs() -> None:
    x, weight = outlying(FEW), gaussian(CHANNELS, 5000, seed=5) * 0.05
    plan = Search(Calibrator.MSE).plan(foldable(), statistics_of(x), {"fc1.weight": weight}, Scheme.INT8)
    assert plan.smooth is not None
    assert plan.snr_db == pytest.approx(decibels(computed(plan, x, weight), (x @ weight).numpy()), abs=0.3)


def test_wide_layers_of_one_site_keep_their_shares_of_its_error() -> None:
    """A narrow weight that int8 serves badly says no more than its outputs' number, drawn from or not."""
    x, wide, narrow = outlying(FEW), gaussian(CHANNELS, 6000, seed=5) * 0.05, gaussian(CHANNELS, 600, seed=6) * 0.05
    narrow[::2] *= 50.0
    site = foldable(linears=("q.weight", "k.weight"))
    plan = Search(Calibrator.MSE).plan(site, statistics_of(x), {"q.weight": wide, "k.weight": narrow}, Scheme.INT8)
    both = torch.cat([wide, narrow], dim=1)
    assert plan.snr_db == pytest.approx(decibels(computed(plan, x, both), (x @ both).numpy()), abs=0.3)
