"""Pixels and mask of T tiles to features: Perception Encoder tower, mask embedding, projector.

Exact rewrites of the released graph, done while weights are read (`weights.py`):
- LayerScale is folded into the linear before it (`attn.proj`, `mlp.fc2`).
- The 3-channel mask convolution sees one binary mask three times: its channels are summed. It stays beside the patch
  convolution: joining pixels and mask for one convolution would copy every pixel once more.
- Class token plus its position embedding is one vector.
- 2-D RoPE pairs neighbours; permuting q's and k's channels alike makes it pair halves, as Llama's does,
  and leaves every dot product unchanged.
- Pooling commutes with the projector's second linear: pool first, a quarter of its work.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gar_edge.models.config import GarConfig, Preprocessing, VisionConfig
from gar_edge.models.layers import LayerNorm, Linear


def rope_2d(config: VisionConfig) -> tuple[Tensor, Tensor]:
    """Cos and sin [S, head_dim/2] of timm's `RotaryEmbeddingCat` with 'xy' indexing; a class token gets angle 0.

    Positions are (index + offset) * reference / grid along each axis; the first half of the pairs turns
    with the column, the second with the row.
    """
    bands = config.rope_theta ** -(
        torch.arange(config.head_dim // 4, dtype=torch.float64, device="cpu") / (config.head_dim // 4)
    )
    steps = torch.arange(config.grid, dtype=torch.float64, device="cpu") + config.rope_grid_offset
    rows, columns = (steps / config.grid * reference for reference in config.rope_reference)
    y = rows[:, None, None] * bands
    x = columns[None, :, None] * bands
    shape = (config.grid, config.grid, len(bands))
    angles = torch.cat([x.expand(shape), y.expand(shape)], dim=-1).flatten(0, 1)
    if config.class_token:
        angles = torch.cat([angles.new_zeros(1, angles.shape[1]), angles])
    return angles.cos().float(), angles.sin().float()


class VisionAttention(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.head_dim
        self.qkv = Linear(config.dim, 3 * config.dim)
        self.proj = Linear(config.dim, config.dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        # [T,S,3*D] -> three of [T,H,S,d]
        query, key, value = (
            part.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(_rotate(query, cos, sin), _rotate(key, cos, sin), value)
        return self.proj(attended.transpose(1, 2).flatten(-2))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class VisionBlock(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.dim, config.norm_eps)
        self.attn = VisionAttention(config)
        self.norm2 = LayerNorm(config.dim, config.norm_eps)
        self.fc1 = Linear(config.dim, config.mlp)
        self.fc2 = Linear(config.mlp, config.dim)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Encoder(nn.Module):
    """`pixel_values` [T,3,h,w] and binary `mask` [T,1,h,w] -> `features` [T,P,C], tokens row-major."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GarConfig) -> None:
        super().__init__()
        vision = config.vision
        self.grid, self.pooling = vision.grid, config.pooling
        self.patch = nn.Conv2d(3, vision.dim, vision.patch, stride=vision.patch, bias=False)
        self.mask_patch = nn.Conv2d(1, vision.dim, vision.patch, stride=vision.patch, bias=False)
        self.class_token = nn.Parameter(torch.empty(1, 1, vision.dim)) if vision.class_token else None
        self.positions = nn.Parameter(torch.empty(1, vision.grid**2, vision.dim))
        self.norm_pre = LayerNorm(vision.dim, vision.norm_eps)
        self.blocks = nn.ModuleList(VisionBlock(vision) for _ in range(vision.depth))
        self.linear_1 = Linear(vision.dim, config.text.hidden)
        self.linear_2 = Linear(config.text.hidden, config.text.hidden)
        cos, sin = rope_2d(vision)
        self.register_buffer("cos", cos.to(self.positions.dtype), persistent=False)
        self.register_buffer("sin", sin.to(self.positions.dtype), persistent=False)

    def forward(self, pixel_values: Tensor, mask: Tensor) -> Tensor:
        x = self.stem(pixel_values, mask)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.projector(x)

    def stem(self, pixel_values: Tensor, mask: Tensor) -> Tensor:
        """What the first block takes, [T,S,D]: patches, positions, class token, norm."""
        x = self.patch(pixel_values) + self.mask_patch(mask)  # [T,D,grid,grid]
        x = x.flatten(2).transpose(1, 2) + self.positions
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.norm_pre(x)

    def projector(self, x: Tensor) -> Tensor:
        """The last block's output [T,S,D] to features [T,P,C]."""
        if self.class_token is not None:
            x = x[:, 1:]
        x = F.gelu(self.linear_1(x))
        return self.linear_2(self._pool(x))

    def _pool(self, x: Tensor) -> Tensor:
        """Average over pooling x pooling neighbours: [T,grid*grid,C] -> [T,P,C]."""
        side = self.grid // self.pooling
        x = x.unflatten(1, (side, self.pooling, side, self.pooling))
        return x.mean(dim=(2, 4)).flatten(1, 2)


class ByteEncoder(Encoder):
    """The encoder as bundles have it: `pixels` uint8 [T,3,h,w] and `mask` bool [T,1,h,w] -> `features` [T,P,C].

    (value * rescale - mean) / std in float32, as one product and one sum per channel, whatever the parameters' type.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, config: GarConfig, preprocessing: Preprocessing) -> None:
        super().__init__(config)
        mean, std = (
            torch.tensor(x, dtype=torch.float64)[:, None, None] for x in (preprocessing.mean, preprocessing.std)
        )
        self.register_buffer("scale", (preprocessing.rescale / std).float(), persistent=False)
        self.register_buffer("shift", (-mean / std).float(), persistent=False)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Bytes [T,3,h,w] as the model was trained on them, in its own type."""
        return (pixels.float() * self.scale + self.shift).to(self.positions.dtype)

    def stem(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """What the first block takes, [T,S,D]."""
        return super().stem(self.normalise(pixels), mask.to(self.positions.dtype))
