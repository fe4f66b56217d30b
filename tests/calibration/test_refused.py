"""Samples and checkpoints that cannot be calibrated with: what is named, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from helpers.calibrating import TWO, pictures, preparation
from helpers.shapes import SHAPES
from torch import Tensor

from gar_edge.calibration.calibrate import CalibrationOptions, calibrate
from gar_edge.calibration.samples import Sample, SampleSet
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.models.weights import (
    WeightSource,
)
from gar_edge.runtime.errors import GarCalibrationError


class Poisoned:
    """A checkpoint's tensors, one element of one of them replaced."""

    def __init__(self, source: WeightSource, name: str, value: float) -> None:
        self._source, self._name, self._value = source, name, value

    def names(self) -> Iterable[str]:
        return self._source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(name)

    def tensor(self, name: str) -> Tensor:
        tensor = self._source.tensor(name).clone()
        if name == self._name:
            tensor.view(-1)[5] = self._value
        return tensor


def calibrated_on(checkpoint: Checkpoint, samples: list[Sample]) -> None:
    options = CalibrationOptions(SampleSet("two pictures", False, lambda: iter(samples)), 2, 1)
    calibrate(checkpoint, preparation(checkpoint), options, lambda what, steps: lambda: None)


VISION, LLAMA = "mllm.model.vision_tower.timm_model.", "mllm.model.language_model."
POISONED = {  # tensor: the first activation that shows it
    "mask_patch_embedding.weight": "blocks.0.attn.qkv",
    VISION + "blocks.0.attn.qkv.weight": "blocks.0.attn.proj",
    VISION + "blocks.1.norm2.bias": "blocks.1.fc1",
    VISION + "blocks.1.mlp.fc1.weight": "blocks.1.fc2",
    "mllm.model.multi_modal_projector.linear_1.weight": "linear_2",
    "mllm.model.multi_modal_projector.linear_2.bias": "layers.0.attn.q_proj",
    LLAMA + "layers.0.self_attn.v_proj.weight": "layers.0.attn.o_proj",
    LLAMA + "layers.1.mlp.up_proj.weight": "layers.1.down_proj",
    LLAMA + "norm.weight": "head",
}


@pytest.mark.parametrize("tensor", sorted(POISONED))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_traced_to_an_activation(tensor: str, value: float) -> None:
    checkpoint = random_checkpoint_of(SHAPES["tied"], "tiny")
    broken = replace(checkpoint, weights=Poisoned(checkpoint.weights, tensor, value))
    with pytest.raises(GarCalibrationError) as error:
        calibrated_on(broken, pictures())
    assert str(error.value).startswith(f"{POISONED[tensor]}: activation is not finite for sample {TWO[0]} (channel ")
    assert "check the checkpoint's weights" in str(error.value)


def test_a_head_that_is_not_finite_is_noticed_too() -> None:
    checkpoint = random_checkpoint_of(SHAPES["untied"], "tiny")
    broken = replace(checkpoint, weights=Poisoned(checkpoint.weights, "mllm.lm_head.weight", math.nan))
    with pytest.raises(GarCalibrationError, match="head"):
        calibrated_on(broken, pictures())


@pytest.mark.parametrize("layer", ["layers.0", "layers.1"])
def test_a_weight_that_is_not_finite_is_named_without_answers_as_well(
    layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gar_edge.calibration.calibrate.RESIDENT_SHARE", 0)
    checkpoint = random_checkpoint_of(SHAPES["tied"], "tiny")
    weights = Poisoned(checkpoint.weights, f"{LLAMA}{layer}.mlp.gate_proj.weight", math.nan)
    with pytest.raises(GarCalibrationError, match=rf"^{layer}\.down_proj: .* for sample {TWO[0]} "):
        calibrated_on(replace(checkpoint, weights=weights), pictures())


def test_samples_that_do_not_fit_the_model_are_left_out(checkpoint: Checkpoint) -> None:
    """Three regions, a short context: everything else than the last picture asks for more."""
    known = preparation(checkpoint)
    spec = replace(known.prompts._spec, regions=known.prompts._spec.regions[:3])
    known.prompts._spec = spec
    short = replace(known, context=400)
    good = pictures(3)[1]
    region = good.masks[1]
    samples = [
        replace(good, name="fourth", masks={4: region}, question="What is <Prompt4>?"),
        replace(good, name="unnamed", masks={0: region}, question="What is it?"),
        replace(good, name="nameless", masks={0: region}, question="What is <Prompt0>, and <Prompt1>?"),
        replace(good, name="silent", masks={0: region, 1: region}),
        replace(good, name="many", masks=dict.fromkeys(range(4), region), question="?"),
        replace(good, name="empty", masks={1: np.zeros_like(region)}),
        replace(good, name="long", question="What is <Prompt1>" + " or what is it" * 30 + "?"),
        good,
    ]
    skipped: list[str] = []
    left = list(short.prepare(samples, skipped))
    assert [sample.name for sample in left] == [TWO[1]]
    reasons = dict(note.split(": ", 1) for note in skipped)
    assert list(reasons) == ["fourth", "unnamed", "nameless", "silent", "many", "empty", "long"]
    assert reasons["fourth"] == "region 4 does not exist; they are numbered 0 to 2"
    assert reasons["unnamed"].startswith("the question does not name <Prompt0>")
    assert "<Prompt1>, for which no mask" in reasons["nameless"]
    assert "2 regions need a question" in reasons["silent"]
    assert "at most 3" in reasons["many"]
    assert "does not fit into the model's 400" in reasons["long"]


def test_samples_of_which_none_fits_are_an_error(checkpoint: Checkpoint) -> None:
    sample = replace(pictures()[1], question="What is <Prompt3>?")
    with pytest.raises(GarCalibrationError, match=r"^two pictures: no sample fits this model \(another: the question"):
        calibrated_on(checkpoint, [sample])
