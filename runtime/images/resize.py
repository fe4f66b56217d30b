"""The released processor's image resize: antialiased bicubic on floats, both axes, rounded once.

Two small matrix products per image. Pillow rounds between its passes and OpenCV uses another kernel without
antialiasing; both change pixels that the model was trained on.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

A = -0.5  # Keys' cubic, as in torch's antialiased bicubic (and Pillow)
SUPPORT = 2.0
BLOCK = 64  # output samples per product; the weights are banded, so blocks skip what is zero
KEPT = 256  # blocks of weights; frames of one camera share theirs


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize [H,W,C] or [H,W] uint8 to [height,width(,C)]; the aspect ratio is not kept.

    Formula: torch's `interpolate(mode="bicubic", antialias=True)`: support 2 * max(scale, 1), normalised weights,
    horizontal pass first, float32 throughout, one rounding (half to even), clipped to 0…255.
    """
    planes = image.reshape(*image.shape[:2], -1)
    rows, columns, channels = planes.shape
    lines = planes.astype(np.float32).transpose(2, 0, 1).reshape(channels * rows, columns)
    wide = _resample(lines, columns, width).reshape(channels, rows, width)
    lines = np.ascontiguousarray(wide.transpose(0, 2, 1)).reshape(channels * width, rows)
    x = _resample(lines, rows, height).reshape(channels, width, height)
    out = np.rint(x).clip(0, 255).astype(np.uint8).transpose(2, 1, 0)
    return np.ascontiguousarray(out).reshape(height, width, *image.shape[2:])


def _resample(lines: NDArray[np.float32], source: int, target: int) -> NDArray[np.float32]:
    """Resample [N,source] to [N,target] by blocks of the banded weight matrix."""
    if source == target:
        return lines  # the kernel is the identity there
    out = np.empty((len(lines), target), np.float32)
    for begin in range(0, target, BLOCK):
        end = min(begin + BLOCK, target)
        first, weights = _weights(source, target, begin, end)
        np.matmul(lines[:, first : first + len(weights)], weights, out=out[:, begin:end])
    return out


@lru_cache(maxsize=KEPT)
def _weights(source: int, target: int, begin: int, end: int) -> tuple[int, NDArray[np.float32]]:
    """Weights [taps, end-begin] of output samples begin…end, and the first source sample they touch."""
    one, half, reach = np.float32(1), np.float32(0.5), np.float32(SUPPORT)
    # float32 from the scale on, as torch has it: in float64, exact ties would round the other way.
    scale = np.float32(source) / np.float32(target)
    stretch = max(scale, one)
    centres = scale * (np.arange(begin, end, dtype=np.float32) + half)
    low = np.maximum((centres - reach * stretch + half).astype(np.int64), 0)
    high = np.minimum((centres + reach * stretch + half).astype(np.int64), source)
    first, last = int(low[0]), int(high[-1])
    taps = np.arange(first, last)[:, None]
    weights = _cubic((taps.astype(np.float32) - centres + half) * (one / stretch))
    weights *= (taps >= low) & (taps < high)
    weights /= weights.sum(axis=0)
    weights.flags.writeable = False
    return first, weights


def _cubic(x: NDArray[np.float32]) -> NDArray[np.float32]:
    x = np.abs(x)
    near = ((A + 2) * x - (A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * A
    return np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))
