"""The arithmetic that must reach ONNX as one operator each, and the same in ordinary operators.

`rotary` and `scatter_cache` are operators of our own to torch, made of plain differentiable torch; a captured program
names each once, and the exporter writes opset 24's operator of the same meaning. `rotate` and `grouped_attention` serve
engines that know no newer operator than opset 20's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import Library

OPSET = 24
COMPAT_OPSET = 20  # the newest that TensorRT 10.1's parser names; encoder and replay need no newer one either

_LIBRARY = Library("gar_edge", "DEF")
_LIBRARY.define("rotary(Tensor x, Tensor cos, Tensor sin) -> Tensor")
_LIBRARY.define("scatter_cache(Tensor cache, Tensor update, Tensor write_index) -> Tensor")


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, halves paired (`x[i]` with `x[i + dim/2]`), as Llama's.

    x [B,H,S,D]; cos, sin [B,S,D/2] in x's dtype.
    """
    rotated: Tensor = ROTARY(x, cos, sin)
    return rotated


def scatter_cache(cache: Tensor, update: Tensor, write_index: Tensor) -> Tensor:
    """The cache with `update` written from slot `write_index[b]` on.

    cache [B,H,capacity,D], update [B,H,S,D], write_index [B] int64. Engines alias the result with `cache`.
    """
    written: Tensor = SCATTER_CACHE(cache, update, write_index)
    return written


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotary`'s arithmetic: x [...,D]; cos, sin broadcastable to [...,D/2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Grouped-query attention with an additive bias and scale 1/sqrt(D).

    query [B,H,S,D]; key, value [B,H/g,K,D]; bias broadcastable to [B,H/g,g*S,K] -> [B,H,S,D]. The g heads that share a
    key lie in one row of memory, so they are g*S queries of one head: each key is read once, not g times.
    """
    groups = query.shape[1] // key.shape[1]
    rows = query.unflatten(1, (-1, groups)).flatten(2, 3)
    attended = F.scaled_dot_product_attention(rows, key, value, attn_mask=bias)
    return attended.unflatten(2, (groups, -1)).flatten(1, 2)


def grouped_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """`attention` as two products and a softmax, heads behind positions.

    query [B,S,H,D]; key, value [B,K,H/g,D]; bias [B,1,S*g,K], g rows for each position -> [B,S,H*D]. The g queries
    that share a key are rows of one product, so that keys and values are not repeated.
    """
    heads, groups = key.shape[2], query.shape[2] // key.shape[2]
    query = query * query.shape[-1] ** -0.5  # before the product: scores of float16 have little room
    query = query.unflatten(2, (heads, groups)).transpose(1, 2).flatten(2, 3)  # [B,H/g,S*g,D]
    weights = torch.softmax(query @ key.permute(0, 2, 3, 1) + bias, dim=-1)
    attended = weights @ value.transpose(1, 2)
    return attended.unflatten(2, (-1, groups)).transpose(1, 2).flatten(2)


def _rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return rotate(x, cos.unsqueeze(1), sin.unsqueeze(1))


def _scatter_cache(cache: Tensor, update: Tensor, write_index: Tensor) -> Tensor:
    slots = write_index[:, None] + torch.arange(update.shape[2], device=cache.device)
    return cache.scatter(2, slots[:, None, :, None].expand(update.shape), update)


_LIBRARY.impl("rotary", _rotary, "CompositeImplicitAutograd")
_LIBRARY.impl("scatter_cache", _scatter_cache, "CompositeImplicitAutograd")
ROTARY = torch.ops.gar_edge.rotary.default
SCATTER_CACHE = torch.ops.gar_edge.scatter_cache.default
