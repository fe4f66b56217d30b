"""The Llama decoder: one forward serves prefill, chunked prefill and decode.

It has two forms of the same parameters. `Decoder` writes into a KV cache of fixed capacity and is made of opset 24's
large operators; `AppendingDecoder` returns a longer cache than it was given and needs nothing newer than opset 20.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gar_edge.models import ops
from gar_edge.models.config import TextConfig
from gar_edge.models.layers import Linear, RMSNorm

FLOOR = torch.finfo(torch.float16).min / 2  # of what a mask adds to a score, whatever its type


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

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B,S,H,d], key and value [B,S,KV,d] of x [B,S,C], not rotated."""
        query, key, value = (
            linear(x).unflatten(-1, (-1, self.head_dim)) for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        return query, key, value

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated query [B,H,S,d] and key [B,KV,S,d], and value [B,KV,S,d] of x [B,S,C]."""
        query, key, value = (states.transpose(1, 2) for states in self.heads(x))
        return ops.rotary(query, cos, sin), ops.rotary(key, cos, sin), value

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        bias: Tensor,
        write_index: Tensor,
        key: Tensor,
        value: Tensor,
        select: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What x [B,S,C] attends to, [B,N,C], and the caches [B,KV,capacity,d] with its keys and values written in.

        bias [B,1,N*H/KV,capacity], from `Decoder.bias`; select [N]: the positions wanted, None: all S.
        """
        query, new_key, new_value = self.project(x, *angles)
        key = ops.scatter_cache(key, new_key, write_index)
        value = ops.scatter_cache(value, new_value, write_index)
        if select is not None:
            query = query.index_select(2, select)
        return self.output(ops.attention(query, key, value, bias)), key, value

    def output(self, attended: Tensor) -> Tensor:
        """[B,H,S,d] -> [B,S,C]."""
        return self.o_proj(attended.transpose(1, 2).flatten(-2))


class AppendingAttention(SelfAttention):
    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        bias: Tensor,
        _: Tensor,
        key: Tensor,
        value: Tensor,
        select: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer's; the past's keys and values are [B,past,KV,d], and new ones [B,past+S,KV,d] are returned."""
        cos, sin = (part.unsqueeze(2) for part in angles)
        query, new_key, new_value = self.heads(x)
        query = ops.rotate(query, cos, sin)
        key = torch.cat([key, ops.rotate(new_key, cos, sin)], dim=1)
        value = torch.cat([value, new_value], dim=1)
        if select is not None:
            query = query.index_select(1, select)
        return self.o_proj(ops.grouped_attention(query, key, value, bias)), key, value


class DecoderLayer(nn.Module):
    def __init__(self, config: TextConfig, attention: type[SelfAttention] = SelfAttention) -> None:
        super().__init__()
        self.input_norm = RMSNorm(config.hidden, config.norm_eps)
        self.attn = attention(config)
        self.post_norm = RMSNorm(config.hidden, config.norm_eps)
        self.gate_proj = Linear(config.hidden, config.ffn, bias=False)
        self.up_proj = Linear(config.hidden, config.ffn, bias=False)
        self.down_proj = Linear(config.ffn, config.hidden, bias=False)

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        bias: Tensor,
        write_index: Tensor,
        key: Tensor,
        value: Tensor,
        select: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """X [B,S,C] through the layer, [B,N,C], and its updated caches; arguments as `SelfAttention` takes them."""
        attended, key, value = self.attn(self.input_norm(x), angles, bias, write_index, key, value, select)
        if select is not None:
            x = x.index_select(1, select)
        return self.feed_forward(x + attended), key, value

    def feed_forward(self, x: Tensor) -> Tensor:
        h = self.post_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Decoder(nn.Module):
    """Llama from embeddings to the logits of selected positions; caches go in and come out updated.

    `head` [V,C] keeps the token table's layout: where the checkpoint ties them, both are the same bytes on disk.
    """

    attention: type[SelfAttention] = SelfAttention
    frequencies: Tensor

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.groups = config.heads // config.kv_heads
        self.layers = nn.ModuleList(DecoderLayer(config, self.attention) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.norm_eps)
        self.head = nn.Parameter(torch.empty(config.vocab, config.hidden))
        self.register_buffer("frequencies", rope_frequencies(config), persistent=False)

    def angles(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cos and sin [B,S,d/2] at integer positions [B,S], computed in float32."""
        angles = positions[..., None].float() * self.frequencies.float()
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def forward(
        self,
        inputs_embeds: Tensor,
        write_index: Tensor,
        attention_mask: Tensor,
        select: Tensor,
        caches: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """One step over S positions.

        inputs_embeds [B,S,C]; write_index [B] int64: the slot, and the position, of each sequence's first new token;
        attention_mask [B,1,S,capacity] bool, true where a query may look; select [N] int64: the positions of S whose
        logits are wanted, the same in every sequence; caches: key and value of each layer in turn,
        [B,KV,capacity,d]. Returns logits [B*N,V], the likeliest tokens [B*N] and the updated caches.
        """
        x = inputs_embeds
        angles, bias = self.prepare(x, write_index, attention_mask)
        updated: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            wanted = None
            if index == len(self.layers) - 1:  # nobody reads more of its result
                bias, wanted = self.bias(attention_mask.index_select(2, select), x.dtype), select
            x, key, value = layer(x, angles, bias, write_index, *caches[2 * index : 2 * index + 2], wanted)
            updated += [key, value]
        return *self.predict(x), *updated

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B*N,V] and likeliest tokens [B*N] after positions of the last layer's result [B,N,C]."""
        logits = F.linear(self.norm(x).flatten(0, 1), self.head)
        return logits, logits.argmax(-1)

    def prepare(self, x: Tensor, write_index: Tensor, attention_mask: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """What every layer takes beside x [B,S,C]: the positions' angles, and the mask as an additive bias.

        attention_mask [B,1,S,K]; bias [B,1,S*H/KV,K], made once for all layers that work on every position.
        """
        steps = torch.arange(x.shape[1], device=x.device)
        return self.angles(write_index[:, None] + steps, x.dtype), self.bias(attention_mask, x.dtype)

    def bias(self, attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
        """What attention adds to its scores [B,1,S*H/KV,K] for a mask [B,1,S,K]."""
        # A finite floor, and room for a score below it: -inf would turn a row without any visible slot into NaN.
        return self.spread(torch.where(attention_mask, 0.0, FLOOR).to(dtype))

    def spread(self, bias: Tensor) -> Tensor:
        """A row of bias [B,1,S,K] for every query that shares a key, in `ops.attention`'s order."""
        return bias.repeat(1, 1, self.groups, 1)


class AppendingDecoder(Decoder):
    """The decoder in ordinary operators. A cache's positions lie in one row, so a beginning of it is a view.

    It takes key and value of each layer's past, [B,past,KV,d], and returns them with the new ones, [B,past+S,KV,d].
    attention_mask is [B,1,S,past+S]. write_index says the position of each sequence's first new token, which need not
    be the past's length where sequences of a batch differ in theirs.
    """

    attention = AppendingAttention

    def spread(self, bias: Tensor) -> Tensor:
        """The bias in `ops.grouped_attention`'s order, heads behind positions."""
        return bias.repeat_interleave(self.groups, dim=2)


def causal_mask(write_index: Tensor, length: int, capacity: int) -> Tensor:
    """The attention mask [B,1,S,capacity] of `length` new tokens: every slot up to the query's own."""
    queries = write_index[:, None] + torch.arange(length, device=write_index.device)
    slots = torch.arange(capacity, device=write_index.device)
    return (slots <= queries[..., None])[:, None]
