"""The Llama decoder with a static KV cache: one forward serves prefill, chunked prefill and decode."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gar_edge.models import ops
from gar_edge.models.config import TextConfig
from gar_edge.models.layers import Linear, RMSNorm


def rope_frequencies(config: TextConfig) -> Tensor:
    """Angles per position [head_dim/2] float32, with Llama 3's scaling of the long wavelengths.

    Formula: transformers' `_compute_llama3_parameters`: wavelengths beyond original/low are slowed by `factor`,
    those under original/high are kept, and between them the two are blended linearly in original/wavelength.
    """
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.int64, device="cpu").float() / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponent
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_context * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (blend + (1 - blend) / scaling.factor)


class SelfAttention(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj = Linear(config.hidden, config.heads * config.head_dim, bias=False)
        self.k_proj = Linear(config.hidden, config.kv_heads * config.head_dim, bias=False)
        self.v_proj = Linear(config.hidden, config.kv_heads * config.head_dim, bias=False)
        self.o_proj = Linear(config.heads * config.head_dim, config.hidden, bias=False)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated query [B,H,S,d] and key [B,KV,S,d], and value [B,KV,S,d] of x [B,S,C]."""
        query, key, value = (
            linear(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        return ops.rotary(query, cos, sin), ops.rotary(key, cos, sin), value

    def output(self, attended: Tensor) -> Tensor:
        """[B,H,S,d] -> [B,S,C]."""
        return self.o_proj(attended.transpose(1, 2).flatten(-2))


class DecoderLayer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.input_norm = RMSNorm(config.hidden, config.norm_eps)
        self.attn = SelfAttention(config)
        self.post_norm = RMSNorm(config.hidden, config.norm_eps)
        self.gate_proj = Linear(config.hidden, config.ffn, bias=False)
        self.up_proj = Linear(config.hidden, config.ffn, bias=False)
        self.down_proj = Linear(config.ffn, config.hidden, bias=False)

    def forward(
        self, x: Tensor, angles: tuple[Tensor, Tensor], bias: Tensor, write_index: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """X [B,S,C] through the layer, and the caches [B,KV,capacity,d] with its keys and values written in."""
        query, new_key, new_value = self.attn.project(self.input_norm(x), *angles)
        key = ops.scatter_cache(key, new_key, write_index)
        value = ops.scatter_cache(value, new_value, write_index)
        x = x + self.attn.output(ops.attention(query, key, value, bias))
        return self.feed_forward(x), key, value

    def feed_forward(self, x: Tensor) -> Tensor:
        h = self.post_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Decoder(nn.Module):
    """Llama from embeddings to the logits of the last position; caches go in and come out updated.

    `head` [V,C] keeps the token table's layout: where the checkpoint ties them, both are the same bytes on disk.
    """

    frequencies: Tensor

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.norm_eps)
        self.head = nn.Parameter(torch.empty(config.vocab, config.hidden))
        self.register_buffer("frequencies", rope_frequencies(config), persistent=False)

    def angles(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cos and sin [B,S,d/2] at integer positions [B,S], computed in float32."""
        angles = positions[..., None].float() * self.frequencies.float()
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def forward(
        self, inputs_embeds: Tensor, write_index: Tensor, attention_mask: Tensor, caches: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """One step over S positions.

        inputs_embeds [B,S,C]; write_index [B] int64: the slot, and the position, of each sequence's first new token;
        attention_mask [B,1,S,capacity] bool, true where a query may look; caches: key and value of each layer in
        turn, [B,KV,capacity,d]. Returns logits [B,V] of the last position and the updated caches.
        """
        x = inputs_embeds
        angles, bias = self.prepare(x, write_index, attention_mask)
        updated: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            x, key, value = layer(x, angles, bias, write_index, *caches[2 * index : 2 * index + 2])
            updated += [key, value]
        return self.logits(x), *updated

    def prepare(self, x: Tensor, write_index: Tensor, attention_mask: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """What every layer takes beside x [B,S,C]: the positions' angles, and the mask as an additive bias."""
        steps = torch.arange(x.shape[1], device=x.device)
        angles = self.angles(write_index[:, None] + steps, x.dtype)
        # A finite floor: -inf would turn a row without any visible slot into NaN, and overflows nothing less.
        return angles, torch.where(attention_mask, 0.0, torch.finfo(x.dtype).min).to(x.dtype)

    def logits(self, x: Tensor) -> Tensor:
        """Logits [B,V] of the last position of the last layer's output [B,S,C]."""
        return ops.project_rows(self.norm(x[:, -1]), self.head)


def causal_mask(write_index: Tensor, length: int, capacity: int) -> Tensor:
    """The attention mask [B,1,S,capacity] of `length` new tokens: every slot up to the query's own."""
    queries = write_index[:, None] + torch.arange(length, device=write_index.device)
    slots = torch.arange(capacity, device=write_index.device)
    return (slots <= queries[..., None])[:, None]
