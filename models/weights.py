"""From a checkpoint's tensors to the modules' parameters: which tensors, which exact rewrite, one at a time.

A `Recipe` per parameter names its source tensors and the arithmetic; the exporter streams through the same
recipes, so that torch and ONNX see the same numbers and nobody ever holds a second copy of the model.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from gar_edge.models.config import GarConfig, VisionConfig

VISION = "mllm.model.vision_tower.timm_model."
PROJECTOR = "mllm.model.multi_modal_projector."
LLAMA = "mllm.model.language_model."
HEAD = "mllm.lm_head.weight"
MASK_PATCH = "mask_patch_embedding.weight"
TOKEN_TABLE = LLAMA + "embed_tokens.weight"

Shape = tuple[int, ...]


class WeightSource(Protocol):
    """Where tensors come from; nothing is read before `tensor` asks for it."""

    def names(self) -> Iterable[str]:
        """Names of all tensors."""
        ...

    def shape(self, name: str) -> Shape:
        """A tensor's shape, without reading it."""
        ...

    def tensor(self, name: str) -> Tensor:
        """The tensor itself, in the dtype it is stored in."""
        ...


@dataclass(frozen=True)
class Recipe:
    """How one parameter is made: `build(*sources)`, in float32."""

    sources: tuple[str, ...]
    build: Callable[..., Tensor]

    def make(self, source: WeightSource, dtype: torch.dtype) -> Tensor:
        """Read the sources, apply the rewrite in float32, cast once. Contiguous."""
        return self.build(*(source.tensor(name).float() for name in self.sources)).to(dtype).contiguous()


Module = TypeVar("Module", bound=nn.Module)


class Maker(Protocol):
    """What makes a graph's parameter: a `Recipe`, or a rounding of what one makes."""

    def make(self, source: WeightSource, dtype: torch.dtype) -> Tensor:
        """The parameter's values, contiguous; `dtype` is what a float parameter is stored in."""
        ...


def _same(weight: Tensor) -> Tensor:
    return weight


def _transposed(weight: Tensor) -> Tensor:
    return weight.T


def _summed(mask: Tensor) -> Tensor:
    """A mask convolution over three copies of one channel [D,3,p,p] -> [D,1,p,p]."""
    return mask.sum(dim=1, keepdim=True)


def _scaled_columns(weight: Tensor, gamma: Tensor) -> Tensor:
    """LayerScale folded into the linear before it: [out,in] and [out] -> [in,out]."""
    return (weight * gamma[:, None]).T


def _scaled(bias: Tensor, gamma: Tensor) -> Tensor:
    return bias * gamma


def _halves(config: VisionConfig) -> Callable[[Tensor], Tensor]:
    """Reorder qkv's output rows so that RoPE's pairs (2i, 2i+1) of q and k become (i, i + head_dim/2)."""
    pairs = torch.arange(config.head_dim).unflatten(0, (-1, 2)).T.flatten()
    head = torch.arange(config.heads)[:, None] * config.head_dim + pairs
    order = torch.cat([head.flatten(), config.dim + head.flatten(), torch.arange(2 * config.dim, 3 * config.dim)])

    def reorder(rows: Tensor) -> Tensor:
        return rows[order].T if rows.ndim == 2 else rows[order]

    return reorder


def encoder_recipes(config: GarConfig) -> dict[str, Recipe]:
    """Recipes for `vision.Encoder`'s parameters."""
    recipes = {
        "patch.weight": Recipe((VISION + "patch_embed.proj.weight",), _same),
        "mask_patch.weight": Recipe((MASK_PATCH,), _summed),
        "norm_pre.weight": Recipe((VISION + "norm_pre.weight",), _same),
        "norm_pre.bias": Recipe((VISION + "norm_pre.bias",), _same),
    }
    if config.vision.class_token:
        recipes["class_token"] = Recipe((VISION + "cls_token", VISION + "pos_embed"), lambda c, p: c + p[:, :1])
        recipes["positions"] = Recipe((VISION + "pos_embed",), lambda p: p[:, 1:])
    else:
        recipes["positions"] = Recipe((VISION + "pos_embed",), _same)
    halves = _halves(config.vision)
    for index in range(config.vision.depth):
        theirs, ours = f"{VISION}blocks.{index}.", f"blocks.{index}."
        for norm in ("norm1", "norm2"):
            for part in ("weight", "bias"):
                recipes[f"{ours}{norm}.{part}"] = Recipe((f"{theirs}{norm}.{part}",), _same)
        for part in ("weight", "bias"):
            recipes[f"{ours}attn.qkv.{part}"] = Recipe((f"{theirs}attn.qkv.{part}",), halves)
        for mine, other, gamma in (("attn.proj", "attn.proj", "gamma_1"), ("fc2", "mlp.fc2", "gamma_2")):
            scale = theirs + gamma
            recipes[f"{ours}{mine}.weight"] = Recipe((f"{theirs}{other}.weight", scale), _scaled_columns)
            recipes[f"{ours}{mine}.bias"] = Recipe((f"{theirs}{other}.bias", scale), _scaled)
        recipes[ours + "fc1.weight"] = Recipe((theirs + "mlp.fc1.weight",), _transposed)
        recipes[ours + "fc1.bias"] = Recipe((theirs + "mlp.fc1.bias",), _same)
    for name in ("linear_1", "linear_2"):
        recipes[name + ".weight"] = Recipe((f"{PROJECTOR}{name}.weight",), _transposed)
        recipes[name + ".bias"] = Recipe((f"{PROJECTOR}{name}.bias",), _same)
    return recipes


def decoder_recipes(config: GarConfig, tied: bool) -> dict[str, Recipe]:
    """Recipes for `llama.Decoder`'s parameters; a tied head reads the token table."""
    recipes = {
        "norm.weight": Recipe((LLAMA + "norm.weight",), _same),
        "head": Recipe((TOKEN_TABLE if tied else HEAD,), _same),
    }
    for index in range(config.text.layers):
        theirs, ours = f"{LLAMA}layers.{index}.", f"layers.{index}."
        recipes[ours + "input_norm.weight"] = Recipe((theirs + "input_layernorm.weight",), _same)
        recipes[ours + "post_norm.weight"] = Recipe((theirs + "post_attention_layernorm.weight",), _same)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            recipes[f"{ours}attn.{name}.weight"] = Recipe((f"{theirs}self_attn.{name}.weight",), _transposed)
        for name in ("gate_proj", "up_proj", "down_proj"):
            recipes[f"{ours}{name}.weight"] = Recipe((f"{theirs}mlp.{name}.weight",), _transposed)
    return recipes


def expected_shapes(config: GarConfig, tied: bool) -> dict[str, Shape]:
    """Name and shape of every tensor that a checkpoint of these dimensions holds."""
    v, t = config.vision, config.text
    patch: Shape = (v.dim, 3, v.patch, v.patch)
    shapes: dict[str, Shape] = {
        MASK_PATCH: patch,
        VISION + "patch_embed.proj.weight": patch,
        VISION + "pos_embed": (1, v.grid**2 + v.class_token, v.dim),
        VISION + "norm_pre.weight": (v.dim,),
        VISION + "norm_pre.bias": (v.dim,),
        PROJECTOR + "linear_1.weight": (t.hidden, v.dim),
        PROJECTOR + "linear_1.bias": (t.hidden,),
        PROJECTOR + "linear_2.weight": (t.hidden, t.hidden),
        PROJECTOR + "linear_2.bias": (t.hidden,),
        TOKEN_TABLE: (t.vocab, t.hidden),
        LLAMA + "norm.weight": (t.hidden,),
    }
    if v.class_token:
        shapes[VISION + "cls_token"] = (1, 1, v.dim)
    if not tied:
        shapes[HEAD] = (t.vocab, t.hidden)
    for index in range(v.depth):
        block = f"{VISION}blocks.{index}."
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}{norm}.weight": (v.dim,), f"{block}{norm}.bias": (v.dim,)}
        shapes |= {block + "gamma_1": (v.dim,), block + "gamma_2": (v.dim,)}
        linears = {
            "attn.qkv": (3 * v.dim, v.dim),
            "attn.proj": (v.dim, v.dim),
            "mlp.fc1": (v.mlp, v.dim),
            "mlp.fc2": (v.dim, v.mlp),
        }
        for name, shape in linears.items():
            shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
    queries, keys = t.heads * t.head_dim, t.kv_heads * t.head_dim
    for index in range(t.layers):
        layer = f"{LLAMA}layers.{index}."
        shapes |= {
            layer + "input_layernorm.weight": (t.hidden,),
            layer + "post_attention_layernorm.weight": (t.hidden,),
            layer + "self_attn.q_proj.weight": (queries, t.hidden),
            layer + "self_attn.k_proj.weight": (keys, t.hidden),
            layer + "self_attn.v_proj.weight": (keys, t.hidden),
            layer + "self_attn.o_proj.weight": (t.hidden, queries),
            layer + "mlp.gate_proj.weight": (t.ffn, t.hidden),
            layer + "mlp.up_proj.weight": (t.ffn, t.hidden),
            layer + "mlp.down_proj.weight": (t.hidden, t.ffn),
        }
    return shapes


def build_module(kind: Callable[[Any], Module], config: Any, dtype: torch.dtype) -> Module:
    """A module with unwritten parameters of the wanted dtype, for inference."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        module = kind(config)
    finally:
        torch.set_default_dtype(before)
    return module.eval().requires_grad_(False)


def load_parameters(module: nn.Module, recipes: Mapping[str, Recipe], source: WeightSource) -> None:
    """Fill a module's parameters in place, one recipe at a time, in the dtype they were created with."""
    for name, parameter in module.named_parameters():
        parameter.data = recipes[name].make(source, parameter.dtype)


class RandomWeights:
    """Reproducible random tensors of a checkpoint's shapes, made when asked for: a model of any size without a file.

    Linears and embeddings ~ N(0, 0.02), norms 1, biases 0, LayerScale the config's initial value.
    """

    def __init__(self, shapes: Mapping[str, Shape], layer_scale: float, seed: int = 0) -> None:
        self._shapes = dict(shapes)
        self._layer_scale = layer_scale
        self._seed = seed

    def names(self) -> Iterable[str]:
        return self._shapes.keys()

    def shape(self, name: str) -> Shape:
        return self._shapes[name]

    def tensor(self, name: str) -> Tensor:
        shape = self._shapes[name]
        if name.endswith(("gamma_1", "gamma_2")):
            return torch.full(shape, self._layer_scale)
        if name.endswith(".bias"):
            return torch.zeros(shape)
        if "norm" in name.rsplit(".", 2)[-2]:
            return torch.ones(shape)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) ^ self._seed)
        return torch.empty(shape).normal_(0.0, 0.02, generator=generator)
