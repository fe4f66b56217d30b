"""What tests of calibration share: samples, and the float model walked over them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gar_edge.calibration.observe import DecoderWalk, Observer, Spoken, encode
from gar_edge.calibration.prepare import Preparation, Prepared
from gar_edge.calibration.samples import Sample
from gar_edge.calibration.sites import decoder_sites, encoder_sites
from gar_edge.export import quantise
from gar_edge.models.checkpoint import Checkpoint


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TWO = ("a picture", "another")


def pictures(prompts: int = 5) -> list[Sample]:
    """A description of one region and a question about two; pictures of other grids."""
    random = np.random.default_rng(3)
    wide, tall = random.integers(0, 256, (60, 150, 3), np.uint8), random.integers(0, 256, (90, 40, 3), np.uint8)
    left, right, part = np.zeros((3, 60, 150), bool)
    left[10:40, :60], right[:, 90:] = True, True
    part = np.zeros((90, 40), bool)
    part[20:70, 10:30] = True
    return [
        Sample(TWO[0], wide, {0: left, prompts - 1: right}, f"Is <Prompt0> like <Prompt{prompts - 1}>?"),
        Sample(TWO[1], tall, {1: part}, None),
    ]


def preparation(checkpoint: Checkpoint) -> Preparation:
    return quantise._preparation(checkpoint, 2)


def observed(checkpoint: Checkpoint, prepared: list[Prepared], watched: int) -> tuple[Observer, list[Spoken]]:
    observer = Observer(encoder_sites(checkpoint.config))
    with torch.inference_mode():
        return observer, encode(checkpoint, prepared, observer, watched, lambda: None)


def walked(
    checkpoint: Checkpoint, prepared: list[Prepared], watched: int, resident: bool, tokens: int = 5
) -> tuple[Observer, list[Spoken]]:
    _, spoken = observed(checkpoint, prepared, 0)
    observer = Observer(decoder_sites(checkpoint.config, checkpoint.tied))
    with torch.inference_mode():
        DecoderWalk(checkpoint, observer, resident, tokens).run(spoken, watched, lambda: None)
    return observer, spoken
