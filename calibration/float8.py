"""E4M3, the 8-bit float of Ada, Hopper and Blackwell: 4 bits of exponent, 3 of mantissa, no infinity, up to 448.

Micikevicius et al. 2022, "FP8 formats for deep learning"; ONNX calls it FLOAT8E4M3FN. Its steps grow with the value, so
a range hardly matters but for its end, where values saturate as ONNX and TensorRT let them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gar_edge.calibration.choices import Calibrator
from gar_edge.calibration.histogram import LinearHistogram
from gar_edge.calibration.rounding import Rounded
from gar_edge.calibration.thresholds import SMALLEST, percentile_threshold

FLOAT8 = torch.float8_e4m3fn
FP8_MAX = 448.0
LEAST_SCALE = 2.0**-14  # the scale and its reciprocal are then normal numbers in half precision
CLIPS = 2.0 ** (-np.arange(25) / 8)  # candidates of a range, relative to the largest value: three octaves, 8 in each


def to_float8(x: Tensor) -> Tensor:
    """The nearest E4M3 of float32 values, ties to even; beyond ±448 the largest, of which torch's cast makes NaN."""
    return x.clamp(-FP8_MAX, FP8_MAX).to(FLOAT8)


def fp8_per_channel(weight: Tensor, axis: int = 1) -> Rounded:
    """A float32 matrix in E4M3, with one scale for each index of `axis` (its output channels)."""
    scale = (weight.abs().amax(dim=1 - axis) / FP8_MAX).clamp(LEAST_SCALE, 65504.0).half()
    return Rounded(to_float8(weight / scale.float().unsqueeze(1 - axis)), scale, axis)


def on_float8_grid(x: Tensor, scale: float) -> Tensor:
    """Activations as static E4M3 sees them."""
    return to_float8(x / scale).float() * scale


def float8_threshold(histogram: LinearHistogram, calibrator: Calibrator) -> float:
    """The magnitude that 448 shall stand for; the scale is this / 448.

    The least squared error of the candidates, unless the calibrator is the largest value or a percentile: entropy's
    rule is made of int8's equal steps.
    """
    if histogram.top == 0 or not histogram.counts.any():
        return SMALLEST
    if calibrator is Calibrator.MINMAX:
        return histogram.top
    if calibrator is Calibrator.PERCENTILE:
        return percentile_threshold(histogram)
    counts = torch.from_numpy(histogram.counts)
    centres = (torch.arange(len(counts), dtype=torch.float32) + 0.5) * histogram.width
    candidates = (histogram.top * CLIPS).tolist()
    errors = [float((counts * (on_float8_grid(centres, top / FP8_MAX) - centres) ** 2).sum()) for top in candidates]
    return candidates[int(np.argmin(errors))]
