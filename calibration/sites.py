"""Where a model is quantised: the inputs of its matrix products, and what can absorb a scaling of each."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gar_edge.models.config import GarConfig

HEAD = "head"


@dataclass(frozen=True)
class Fold:
    """What an input's channels may be divided by, upstream: nothing is added at run time, and the float model is equal.

    parameters: vectors, or matrices [in, out], whose last axis from `begin` on yields the site's channels.
    groups: how often a head of `head_dim` channels is repeated on the way (grouped-query attention); 1 elsewhere.
    """

    parameters: tuple[str, ...]
    begin: int = 0
    groups: int = 1
    head_dim: int = 1

    def shared(self, scale: Tensor) -> Tensor:
        """The nearest scale [C] that the fold can realise: heads that are copies of one head share theirs."""
        if self.groups == 1:
            return scale
        heads = scale.view(-1, self.groups, self.head_dim)
        return heads.amax(dim=1, keepdim=True).expand_as(heads).reshape(-1)

    def upstream(self, scale: Tensor) -> Tensor:
        """The scale of the parameters' own channels [C / groups]."""
        return scale.view(-1, self.groups, self.head_dim)[:, 0].reshape(-1)


@dataclass(frozen=True)
class Site:
    """One activation and the linears that read it.

    name: of the first linear. linears: module names; their weights are `NAME.weight` [in, out], the head's `head`
    [out, in]. group: what it is in its block, for reports. channels: C. fold: None where nothing can absorb a scale.
    """

    name: str
    linears: tuple[str, ...]
    group: str
    channels: int
    fold: Fold | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        """The linears' weight parameters."""
        return tuple(weight_name(linear) for linear in self.linears)


def weight_name(linear: str) -> str:
    """The parameter that holds a linear's weight."""
    return HEAD if linear == HEAD else f"{linear}.weight"


def encoder_sites(config: GarConfig) -> list[Site]:
    """Every linear of the vision tower and the projector; patch and mask convolutions stay float."""
    vision, hidden = config.vision, config.text.hidden
    sites: list[Site] = []
    for index in range(vision.depth):
        block = f"blocks.{index}."
        qkv = block + "attn.qkv"
        value = Fold((f"{qkv}.weight", f"{qkv}.bias"), begin=2 * vision.dim)
        sites += [
            Site(qkv, (qkv,), "qkv", vision.dim, _norm(block + "norm1")),
            Site(block + "attn.proj", (block + "attn.proj",), "proj", vision.dim, value),
            Site(block + "fc1", (block + "fc1",), "fc1", vision.dim, _norm(block + "norm2")),
            Site(block + "fc2", (block + "fc2",), "fc2", vision.mlp),  # behind GELU, which no scale passes
        ]
    sites.append(Site("linear_1", ("linear_1",), "projector", vision.dim))
    sites.append(Site("linear_2", ("linear_2",), "projector", hidden))
    return sites


def decoder_sites(config: GarConfig, tied: bool) -> list[Site]:
    """Every linear of the language model. A tied head cannot be scaled: its rows are the token table's."""
    text = config.text
    sites: list[Site] = []
    for index in range(text.layers):
        layer = f"layers.{index}."
        attn = layer + "attn."
        value = Fold((attn + "v_proj.weight",), groups=text.heads // text.kv_heads, head_dim=text.head_dim)
        up = Fold((layer + "up_proj.weight",))
        queries = tuple(attn + name for name in ("q_proj", "k_proj", "v_proj"))
        gates = (layer + "gate_proj", layer + "up_proj")
        sites += [
            Site(queries[0], queries, "qkv", text.hidden, Fold((layer + "input_norm.weight",))),
            Site(attn + "o_proj", (attn + "o_proj",), "o_proj", text.heads * text.head_dim, value),
            Site(gates[0], gates, "gate_up", text.hidden, Fold((layer + "post_norm.weight",))),
            Site(layer + "down_proj", (layer + "down_proj",), "down_proj", text.ffn, up),
        ]
    sites.append(Site(HEAD, (HEAD,), HEAD, text.hidden, None if tied else Fold(("norm.weight",))))
    return sites


def _norm(name: str) -> Fold:
    return Fold((f"{name}.weight", f"{name}.bias"))
