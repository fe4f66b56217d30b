"""Feature replay: a region's features, RoI-aligned out of the merged tile map.

Average RoIAlign is separable, so each region is two small matrix products, `Ay @ F @ Ax.T`, whose
weights come from the box alone. Written with float32 coordinates, weights and accumulation.
"""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLES = 2  # RoIAlign's sampling_ratio in the released code


def axis_weights(start: Tensor, end: Tensor, length: int, bins: int, scale: float) -> Tensor:
    """RoIAlign's interpolation weights along one axis (sampling_ratio 2, aligned).

    start, end [R]: the box's edges in feature cells; length: cells along the axis. Returns [R,bins,length].
    Formula: torchvision's `roi_align` (ROIAlign_cpu.cpp, `pre_calc_for_bilinear_interpolate`).
    """
    first = start * scale - 0.5
    bin_size = (end - start) * scale / bins
    step = (torch.arange(bins * SAMPLES, dtype=torch.float32, device=start.device) + 0.5) / SAMPLES
    at = first[:, None] + bin_size[:, None] * step  # [R,bins*samples]
    inside = (at >= -1.0) & (at <= length)
    cells = torch.arange(length, dtype=torch.float32, device=start.device)
    hat = torch.relu(1.0 - (at.clamp(0, length - 1)[..., None] - cells).abs())
    weights = hat * inside[..., None]
    return weights.unflatten(1, (bins, SAMPLES)).mean(dim=2)


def replay(features: Tensor, grid: tuple[int, int], boxes: Tensor, spatial_scale: float) -> Tensor:
    """Replayed features [R,P,C] of R regions.

    features [T,P,C] with the thumbnail first; grid: (columns, rows) of tiles; boxes [R,4] float32 (x1,y1,x2,y2),
    fractions of the image. The box is turned into cells and then multiplied by `spatial_scale` once more: the
    released weights were trained with that double scale (1/28), so it is part of the model.
    """
    columns, rows = grid
    tokens, channels = features.shape[1:]
    side = round(tokens**0.5)
    tiles = features[1:].float().reshape(rows, columns, side, side, channels)
    merged = tiles.transpose(1, 2).reshape(rows * side, columns * side, channels)
    x1, y1, x2, y2 = boxes.float().unbind(-1)
    height, width = merged.shape[:2]
    weights_y = axis_weights(y1 * height, y2 * height, height, side, spatial_scale)
    weights_x = axis_weights(x1 * width, x2 * width, width, side, spatial_scale)
    out = torch.einsum("ryh,hwc,rxw->ryxc", weights_y, merged, weights_x)
    return out.flatten(1, 2).to(features.dtype)
