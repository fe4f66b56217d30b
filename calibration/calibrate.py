"""From samples to plans: run the float model, gather statistics, decide for every site."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import psutil
import torch

from gar_edge.calibration.choices import Calibrator
from gar_edge.calibration.observe import DecoderWalk, Observer, Spoken, decoder_bytes, encode
from gar_edge.calibration.plan import Plan, Scheme, SitePlan
from gar_edge.calibration.prepare import Preparation, Prepared
from gar_edge.calibration.samples import SampleSet
from gar_edge.calibration.search import Search
from gar_edge.calibration.sites import HEAD, Site, decoder_sites, encoder_sites
from gar_edge.calibration.thresholds import threshold
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.weights import Recipe, decoder_recipes, encoder_recipes
from gar_edge.runtime.engines.host_memory import give_back_freed
from gar_edge.runtime.errors import GarCalibrationError

RESIDENT_SHARE = 0.4  # of the free memory that the float decoder may take; beyond, layers come and go

Begin = Callable[[str, int], Callable[[], None]]
"""Announces a piece of work and its number of steps; what it returns is called after each."""


@dataclass(frozen=True)
class CalibrationOptions:
    """samples: to calibrate on, `asked` of them, and `held_out` more that only measure what it cost.

    answer_tokens: most of a greedy answer.
    """

    samples: SampleSet
    asked: int
    held_out: int
    scheme: Scheme = Scheme.INT8
    calibrator: Calibrator = Calibrator.MSE
    smooth: bool = True
    answer_tokens: int = 16


@dataclass(frozen=True)
class Calibrated:
    """Plans by graph; the float model's word on samples that calibrated nothing; plain int8 ranges of every site.

    ranges: by graph and site, thresholds of the unsmoothed activations. answered: whether greedy answers were part of
    it. description, builtin, used, skipped: the samples.
    """

    plans: Mapping[str, Plan]
    reference: tuple[Spoken, ...]
    ranges: Mapping[str, Mapping[str, float]]
    description: str
    builtin: bool
    used: int
    skipped: tuple[str, ...]
    answered: bool


def calibrate(
    checkpoint: Checkpoint, preparation: Preparation, options: CalibrationOptions, begin: Begin
) -> Calibrated:
    """Plan a checkpoint's quantisation; `GarCalibrationError` where the samples or the activations are unusable."""
    skipped: list[str] = []
    begin("Calibrating: reading samples", 1)
    samples = list(preparation.prepare(options.samples, skipped))
    skipped += options.samples.skipped
    if not samples:
        raise GarCalibrationError(
            f"{options.samples.description}: no sample fits this model ({'; '.join(skipped[:3])})"
        )
    # Of fewer than asked, the same share is held out; of one, it calibrates and measures.
    share = options.held_out / (options.asked + options.held_out)
    held_out = min(options.held_out, max(round(len(samples) * share), 1))
    watched = max(len(samples) - held_out, 1)

    with torch.inference_mode():
        encoder, spoken = _encoder(checkpoint, options, samples, watched, begin)
        give_back_freed()
        resident = decoder_bytes(checkpoint) < RESIDENT_SHARE * psutil.virtual_memory().available
        decoder = _decoder(checkpoint, options, spoken, watched, resident, begin)
    return Calibrated(
        plans={"encoder": encoder.plan, "decoder": decoder.plan},
        reference=tuple(spoken[-held_out:]),
        ranges={"encoder": encoder.ranges, "decoder": decoder.ranges},
        description=options.samples.description,
        builtin=options.samples.builtin,
        used=watched,
        skipped=tuple(skipped),
        answered=resident,
    )


@dataclass(frozen=True)
class _Planned:
    plan: Plan
    ranges: Mapping[str, float]


def _encoder(
    checkpoint: Checkpoint,
    options: CalibrationOptions,
    samples: Sequence[Prepared],
    watched: int,
    begin: Begin,
) -> tuple[_Planned, list[Spoken]]:
    sites = encoder_sites(checkpoint.config)
    observer = Observer(sites, watched)
    done = begin(f"Calibrating the encoder on {watched} samples", checkpoint.config.vision.depth)
    spoken = encode(checkpoint, samples, observer, watched, done)
    recipes = encoder_recipes(checkpoint.config)
    done = begin("Planning the encoder", len(sites))
    schemes = dict.fromkeys(sites, _scheme_of_8_bits(options.scheme))
    return _plan(checkpoint, options, recipes, schemes, observer, done), spoken


def _decoder(
    checkpoint: Checkpoint,
    options: CalibrationOptions,
    spoken: Sequence[Spoken],
    watched: int,
    resident: bool,
    begin: Begin,
) -> _Planned:
    sites = decoder_sites(checkpoint.config, checkpoint.tied)
    observer = Observer(sites, watched)
    steps = len(spoken) if resident else checkpoint.config.text.layers
    done = begin(f"Calibrating the decoder on {watched} samples", steps)
    DecoderWalk(checkpoint, observer, resident, options.answer_tokens).run(spoken, watched, done)
    head = _scheme_of_8_bits(options.scheme)
    schemes = {site: head if site.name == HEAD else options.scheme for site in sites}
    recipes = decoder_recipes(checkpoint.config, checkpoint.tied)
    done = begin("Planning the decoder", len(sites))
    return _plan(checkpoint, options, recipes, schemes, observer, done)


def _scheme_of_8_bits(scheme: Scheme) -> Scheme:
    """The scheme of encoder and head, which 4 bits would cost too much."""
    return Scheme.INT8 if scheme is Scheme.INT4 else scheme


def _plan(
    checkpoint: Checkpoint,
    options: CalibrationOptions,
    recipes: Mapping[str, Recipe],
    schemes: Mapping[Site, Scheme],
    observer: Observer,
    done: Callable[[], None],
) -> _Planned:
    """Decide for every site, its weights read for as long as that takes."""
    search = Search(options.calibrator, options.smooth)
    plans: dict[str, SitePlan] = {}
    ranges: dict[str, float] = {}
    for site, scheme in schemes.items():
        statistics = observer.statistics.pop(site.name)
        weights = {name: recipes[name].make(checkpoint.weights, torch.float32) for name in site.weights}
        plans[site.name] = search.plan(site, statistics, weights, scheme)
        ranges[site.name] = threshold(statistics.linear(), options.calibrator)
        done()
    return _Planned(Plan(plans), ranges)


def kept_float(plan: Plan, names: Collection[str]) -> Plan:
    """The plan with some of its sites left as they were."""
    float_sites = {name: SitePlan(plan.sites[name].site, Scheme.FLOAT) for name in names}
    return Plan({**plan.sites, **float_sites})


def worst_sites(plan: Plan, share: float) -> list[str]:
    """The quantised sites with the lowest signal-to-noise ratio, this share of all but at least one."""
    quantised = [site for site in plan.sites.values() if site.scheme is not Scheme.FLOAT]
    ranked = sorted(quantised, key=lambda site: site.snr_db)
    return [site.site.name for site in ranked[: max(1, math.ceil(share * len(plan.sites)))]]
