"""The released processor's image resize: antialiased bicubic on floats, both axes, rounded once.

Small matrix products, each of a block of output samples with the few source samples that they read. No library has
this resize: torch places its kernel by float32 arithmetic, which moves values by up to a hundredth of a level, so that
Pillow and ONNX Runtime, on float planes too, round up to 0.3 % of a picture's pixels otherwise. Neither is faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

A = -0.5  # Keys' cubic, as in torch's antialiased bicubic (and Pillow)
SUPPORT = 2.0
BLOCK = 16  # output samples per product; the weights are banded, so blocks skip what is zero
# Multiply-adds of one product: its operands stay in the cache, and NumPy's OpenBLAS spreads only larger ones over
# threads, which spin on every core and wait for each other where there is other work.
PRODUCT = 1 << 18
KEPT = 64  # ranges whose weights are kept; frames of one camera share theirs


class Span(NamedTuple):
    """Output samples begin…end of an axis of `source` samples that is resized to `target`."""

    source: int
    target: int
    begin: int
    end: int


@dataclass(frozen=True)
class Block:
    """Output samples begin…end of an axis, and the weights [taps, end-begin] of the source samples from `first` on."""

    begin: int
    end: int
    first: int
    weights: NDArray[np.float32]

    @property
    def last(self) -> int:
        """Behind the last source sample that is read."""
        return self.first + len(self.weights)


def resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize [H,W,C] or [H,W] uint8 to [height,width(,C)]; the aspect ratio is not kept.

    Formula: torch's `interpolate(mode="bicubic", antialias=True)`: support 2 * max(scale, 1), normalised weights,
    horizontal pass first, float32 throughout, one rounding (half to even), clipped to 0…255.
    """
    planes = image.reshape(*image.shape[:2], -1)
    across, down = blocks(image.shape[1], width, 0, width), blocks(image.shape[0], height, 0, height)
    out = resize_part(planes, across, down)
    return np.ascontiguousarray(out.transpose(1, 2, 0)).reshape(height, width, *image.shape[2:])


def resize_part(image: NDArray[np.uint8], across: Sequence[Block], down: Sequence[Block]) -> NDArray[np.uint8]:
    """The part of the resized [H,W,C] that lies in neighbouring blocks of columns and of rows: [C,rows,columns].

    Every pixel is what resizing the whole would give it; only the source that the blocks read is looked at.
    """
    left, top = across[0].first, down[0].first
    column, row = across[0].begin, down[0].begin
    source = image[top : down[-1].last, left : across[-1].last].transpose(2, 0, 1).astype(np.float32, order="C")
    wide = np.empty((*source.shape[:2], across[-1].end - column), np.float32)
    for block in across:
        taps = source[:, :, block.first - left : block.last - left]
        into = wide[:, :, block.begin - column : block.end - column]
        for piece in _pieces(source.shape[1], block):
            np.matmul(taps[:, piece], block.weights, out=into[:, piece])
    out = np.empty((len(source), down[-1].end - row, wide.shape[2]), np.float32)
    for block in down:
        taps = wide[:, block.first - top : block.last - top]
        into = out[:, block.begin - row : block.end - row]
        for piece in _pieces(wide.shape[2], block):
            np.matmul(block.weights.T, taps[:, :, piece], out=into[:, :, piece])
    return np.clip(np.rint(out, out=out), 0, 255, out=out).astype(np.uint8)


def _pieces(length: int, block: Block) -> list[slice]:
    """Lines cut up so that the block's product with each stays small."""
    step = max(1, PRODUCT // block.weights.size)
    return [slice(begin, begin + step) for begin in range(0, length, step)]


@lru_cache(maxsize=KEPT)
def blocks(source: int, target: int, begin: int, end: int) -> tuple[Block, ...]:
    """Output samples begin…end of `source` samples resized to `target`, in blocks from `begin` on."""
    low, weights = weights_of(Span(source, target, begin, end))
    taps = np.arange(len(weights))[:, None]
    found = []
    for start in range(0, end - begin, BLOCK):
        stop = min(start + BLOCK, end - begin)
        own = weights[:, start:stop]
        lines = low[start:stop] - low[start] + taps  # of the band, for every weight
        band = np.zeros((lines[-1, -1] + 1, stop - start), np.float32)
        band[lines, np.arange(stop - start)] = own
        band = band[: source - low[start]]  # weights behind the last source sample are zero
        band.flags.writeable = False
        found.append(Block(begin + start, begin + stop, int(low[start]), band))
    return tuple(found)


def weights_of(span: Span) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The first source sample that each output sample reads, and the weights [taps, end-begin] from there on.

    Weights behind the last source sample are zero.
    """
    source, target, begin, end = span
    if source == target:  # the kernel is the identity there
        return np.arange(begin, end), np.ones((1, end - begin), np.float32)
    one, half, reach = np.float32(1), np.float32(0.5), np.float32(SUPPORT)
    # float32 from the scale on, as torch has it: in float64, exact ties would round the other way.
    scale = np.float32(source) / np.float32(target)
    stretch = max(scale, one)
    centres = scale * (np.arange(begin, end, dtype=np.float32) + half)
    low = np.maximum((centres - reach * stretch + half).astype(np.int64), 0)
    high = np.minimum((centres + reach * stretch + half).astype(np.int64), source)
    taps = low + np.arange((high - low).max())[:, None]
    weights = _cubic((taps.astype(np.float32) - centres + half) * (one / stretch))
    weights *= taps < high
    weights /= weights.sum(axis=0)
    return low, weights


def _cubic(x: NDArray[np.float32]) -> NDArray[np.float32]:
    x = np.abs(x)
    near = ((A + 2) * x - (A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * A
    return np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))
