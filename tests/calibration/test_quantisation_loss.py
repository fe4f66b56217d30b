"""What a bundle lost, and which sites return to float for it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.calibrating import pictures, preparation, walked
from helpers.shapes import SHAPES

from gar_edge.calibration import evaluate
from gar_edge.calibration.calibrate import kept_float, worst_sites
from gar_edge.calibration.evaluate import Budget, Likeness, Loss, measure
from gar_edge.calibration.plan import Plan, Scheme, SitePlan
from gar_edge.calibration.sites import Site
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.export.validate import validate
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.runtime import Gar
from gar_edge.runtime.bundle.bundle import read_manifest


def test_divergence_by_hand() -> None:
    """P = (1/4, 3/4), Q = (1/2, 1/2): KL = log(1/2) / 4 + 3 log(3/2) / 4."""
    p, q = np.log(np.array([1, 3], np.float32)), np.zeros(2, np.float32)
    assert evaluate._kl(p, q) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-6)
    assert evaluate._kl(q, p) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-6)
    assert evaluate._kl(p, p + 7) == pytest.approx(0, abs=1e-6)
    assert evaluate._kl(np.array([9e4, 0], np.float32), np.array([0, 0], np.float32)) == pytest.approx(math.log(2))


def test_likeness_by_hand() -> None:
    sums = evaluate._Sums()
    sums.add(np.array([[1.0, 0]]), np.array([[1.0, 1]]))
    sums.add(np.array([2.0]), np.array([3.0]))
    found = sums.likeness()  # of (1, 0, 2) and (1, 1, 3)
    assert found.cosine == pytest.approx(7 / math.sqrt(5 * 11))
    assert found.relative_error == pytest.approx(math.sqrt(2 / 11))


def loss(cosine: float, kl: float) -> Loss:
    return Loss(Likeness(cosine, 0.1), Likeness(0.5, 0.9), 0.9, kl, 10)


def test_budgets() -> None:
    budget = Budget(encoder_cosine=0.99, kl=0.02)
    assert loss(0.99, 0.02).within(budget)
    assert not loss(0.9899, 0.0).within(budget)
    assert not loss(1.0, 0.0201).within(budget)
    assert not loss(math.nan, 0.0).within(budget)
    assert not loss(1.0, math.nan).within(budget)


def test_a_float_bundle_lost_nothing_and_a_wrong_answer_shows(tiny_bundle: Path) -> None:
    """The float32 bundle beside the torch modules; then beside logits that were tampered with."""
    checkpoint = random_checkpoint_of(SHAPES["tied"], "tiny")
    samples = list(preparation(checkpoint).prepare(pictures(), []))
    _, spoken = walked(checkpoint, samples, 0, True)
    pipeline = Gar.load(tiny_bundle, threads=1).pipeline
    lost = measure(pipeline, spoken)
    assert lost.positions == 12
    assert lost.next_token_agreement == 1
    assert lost.kl < 1e-6
    for likeness in (lost.encoder, lost.decoder):
        assert likeness.cosine == pytest.approx(1, abs=1e-6)
        assert likeness.relative_error < 1e-3
    assert lost.within(Budget(0.9999, 1e-5))

    other = spoken[0].logits[3].argmin()
    spoken[0].logits[3][other] += 50  # the float model would be sure of another token
    wrong = measure(pipeline, spoken)
    assert wrong.next_token_agreement == pytest.approx(11 / 12)
    p, q = (torch.tensor(x).double().log_softmax(0) for x in (spoken[0].logits[3], spoken[0].logits[3].copy()))
    q = torch.tensor(spoken[0].logits[3]).double()
    q[other] -= 50
    q = q.log_softmax(0)
    assert wrong.kl == pytest.approx(float((p.exp() * (p - q)).sum()) / 12, rel=1e-3)
    assert wrong.encoder == lost.encoder


def planned(ratios: dict[str, float], float_sites: tuple[str, ...] = ()) -> Plan:
    return Plan(
        {
            name: SitePlan(Site(name, (name,), "g", 4), Scheme.FLOAT if name in float_sites else Scheme.INT8, 1.0,
                           torch.ones(4), snr_db=ratio)
            for name, ratio in ratios.items()
        }
    )  # fmt: skip


def test_the_noisiest_sites() -> None:
    plan = planned({"a": 30, "b": 10, "c": 20, "d": 5, "e": math.inf}, ("d",))
    assert worst_sites(plan, 0.01) == ["b"]
    assert worst_sites(plan, 0.4) == ["b", "c"]
    assert worst_sites(plan, 0.41) == ["b", "c", "a"]
    assert worst_sites(plan, 1) == ["b", "c", "a", "e"]
    assert worst_sites(kept_float(plan, "abcde"), 1) == []


def test_sites_kept_in_float_are_as_they_were() -> None:
    plan = planned({"a": 30, "b": 10, "c": 20})
    kept = kept_float(plan, ["b"])
    assert list(kept.sites) == ["a", "b", "c"]
    assert (kept.sites["b"].scheme, kept.sites["b"].smooth) == (Scheme.FLOAT, None)
    assert kept.sites["a"] is plan.sites["a"]
    assert plan.sites["b"].scheme is Scheme.INT8
    assert kept_float(plan, []).sites == plan.sites


@pytest.mark.parametrize(("cosine", "judged", "ok"), [(0.95, True, True), (0.85, True, False), (0.85, False, None)])
def test_a_bundle_that_lost_too_much_is_refused_unless_its_weights_are_random(
    tiny_bundle: Path, cosine: float, judged: bool, ok: bool | None
) -> None:
    loss = Loss(Likeness(0.99, 0.1), Likeness(cosine, 0.5), 1.0, 0.0, 10)
    manifest = read_manifest(tiny_bundle)
    checkpoint = random_checkpoint_of(SHAPES["tied"], "tiny")
    report = validate(checkpoint, tiny_bundle, manifest, Precision.INT4, Silent(), loss, judged)
    decoder = next(check for check in report.checks if check.name == "decoder")
    assert decoder.ok is ok
    assert f"cosine {cosine:.5f}" in decoder.detail
    assert report.ok is (ok is not False)
