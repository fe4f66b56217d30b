"""The operators that must reach ONNX as one node each, with the torch arithmetic they stand for.

In eager mode these are plain differentiable torch. While torch exports, each becomes the standard
opset-24 operator of the same meaning, so that engines see an `Attention` and not twelve fragments.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

OPSET = 24


def _node(name: str, inputs: list[Tensor], like: Tensor, shape: list[int | torch.SymInt], **attrs: Any) -> Tensor:
    return torch.onnx.ops.symbolic(f"::{name}", inputs, attrs=attrs, dtype=like.dtype, shape=shape, version=OPSET)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, halves paired (`x[i]` with `x[i + dim/2]`), as Llama's.

    x [B,H,S,D]; cos, sin [B,S,D/2] in x's dtype.
    """
    if torch.compiler.is_exporting():
        return _node("RotaryEmbedding", [x, cos, sin], x, list(x.shape))
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def scatter_cache(cache: Tensor, update: Tensor, write_index: Tensor) -> Tensor:
    """The cache with `update` written from slot `write_index[b]` on.

    cache [B,H,capacity,D], update [B,H,S,D], write_index [B] int64. Engines alias the result with `cache`.
    """
    if torch.compiler.is_exporting():
        return _node("TensorScatter", [cache, update, write_index], cache, list(cache.shape), axis=2)
    slots = write_index[:, None] + torch.arange(update.shape[2], device=cache.device)
    return cache.scatter(2, slots[:, None, :, None].expand(update.shape), update)


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Grouped-query attention with an additive bias and scale 1/sqrt(D).

    query [B,H,S,D]; key, value [B,H/g,K,D]; bias broadcastable to [B,H,S,K] -> [B,H,S,D].
    """
    if torch.compiler.is_exporting():
        return _node("Attention", [query, key, value, bias], query, list(query.shape))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=True)


def project_rows(x: Tensor, rows: Tensor) -> Tensor:
    """X @ rows.T, keeping `rows` in the token table's own layout so that head and table share one copy.

    x [B,C], rows [V,C] -> [B,V].
    """
    if torch.compiler.is_exporting():
        return _node("Gemm", [x, rows], x, [x.shape[0], rows.shape[0]], transB=1)
    return F.linear(x, rows)
