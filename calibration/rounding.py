"""Float weights to integers: int8 per output channel, int4 in blocks, scales that minimise the error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gar_edge.runtime.errors import GarCalibrationError

INT8_MAX = 127
INT4_MIN, INT4_MAX = -8, 7
BLOCKS = (64, 32, 16)  # rows that share an int4 scale: the first that divides a weight's rows
SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)  # candidate scales of a block, relative to the one that clips nothing
COLUMNS = 256  # worked on at once: a candidate stays in the cache, which is 2.4 times as fast as 4096


@dataclass(frozen=True)
class Rounded:
    """A matrix of 8 or 4 bits and its scales: value = q * scale.

    q [in, out] int8 or E4M3 (for int4: two of a row in a byte, [in, out / 2] uint8, the even column in the low half).
    scale: float16: one per index of `axis`, or [in / block, out] for blocks of `block` rows.

    `GarCalibrationError` where q holds -128: ARM processors without dot products add pairs of products in 16 bits, and
    -128 * -128 twice is more than they hold.
    """

    q: Tensor
    scale: Tensor
    axis: int = 1
    block: int | None = None

    def __post_init__(self) -> None:
        if self.q.dtype is torch.int8 and self.q.numel() and int(self.q.min()) < -INT8_MAX:
            raise GarCalibrationError(f"a weight was rounded to -128; weights must stay within ±{INT8_MAX}")

    def dequantised(self) -> Tensor:
        """The matrix that the integers stand for, float32."""
        if self.block is None:
            return self.q.float() * self.scale.float().unsqueeze(1 - self.axis)
        low, high = self.q & 15, self.q >> 4
        q = torch.stack([low, high], dim=-1).flatten(-2).to(torch.int8)
        q = torch.where(q > INT4_MAX, q - 16, q)
        return q.float() * self.scale.float().repeat_interleave(self.block, dim=0)


def to_half(scale: Tensor) -> Tensor:
    """Scales as stored: float16, never zero. Integers are rounded with these, so storing them loses nothing more."""
    return scale.clamp(min=2.0**-24, max=65504.0).half()


def int8_per_channel(weight: Tensor, axis: int = 1) -> Rounded:
    """Symmetric int8 of a float32 matrix, one scale for each index of `axis` (its output channels), zero point 0."""
    scale = to_half(weight.abs().amax(dim=1 - axis) / INT8_MAX)
    q = (weight / scale.float().unsqueeze(1 - axis)).round_().clamp_(-INT8_MAX, INT8_MAX).to(torch.int8)
    return Rounded(q, scale, axis)


def block_of(rows: int) -> int | None:
    """The block for a weight of so many input rows; None where no supported block divides them."""
    return next((block for block in BLOCKS if rows % block == 0), None)


def int4_blocks(weight: Tensor, block: int, importance: Tensor | None = None) -> Rounded:
    """Symmetric int4 of a float32 weight [in, out] in blocks of `block` rows, for `DequantizeLinear` along axis 0.

    Each block's scale is the candidate with the least squared error, rows weighted by `importance` [in] (their
    activations' mean squares); clipping a block's largest weight often serves the others better.
    """
    pieces = [_int4(part, block, importance) for part in weight.split(COLUMNS, dim=1)]
    return Rounded(torch.cat([q for q, _ in pieces], dim=1), torch.cat([s for _, s in pieces], dim=1), block=block)


def _int4(weight: Tensor, block: int, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    blocks = weight.unflatten(0, (-1, block))  # [in/block, block, out]
    share = torch.ones(weight.shape[0]) if importance is None else importance / importance.mean().clamp(min=1e-30)
    share = share.view(-1, block, 1)
    widest = blocks.abs().amax(dim=1, keepdim=True) / INT4_MAX
    best = torch.full_like(widest, torch.inf)
    scale = to_half(widest)
    for shrink in SHRINK:
        candidate = to_half(widest * shrink)
        error = (share * (_nearest(blocks, candidate) * candidate.float() - blocks) ** 2).sum(dim=1, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        scale = torch.where(better, candidate, scale)
    q = _nearest(blocks, scale).to(torch.int8).flatten(0, 1)  # [in, out]
    packed = (q[:, 0::2] & 15) | ((q[:, 1::2] & 15) << 4)
    return packed.view(torch.uint8), scale[:, 0]


def _nearest(blocks: Tensor, scale: Tensor) -> Tensor:
    return (blocks / scale.float()).round_().clamp_(INT4_MIN, INT4_MAX)


def on_grid(x: Tensor, scale: float) -> Tensor:
    """Activations as static symmetric int8 sees them: rounded to multiples of `scale`, clipped at 127 of them.

    Clipped at -127 as well: int8 reaches -128, its uint8 twin on CPUs too, but thresholds are symmetric.
    """
    return (x / scale).round_().clamp_(-INT8_MAX - 1, INT8_MAX) * scale
