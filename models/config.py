"""Dimensions and ids of a GAR model, read from a checkpoint's `config.json` and `preprocessor_config.json`.

Nothing here knows a size by heart except what the released config leaves to its vision library: the
defaults of the two Perception Encoder architectures (`ARCHITECTURES`), from timm's `eva.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gar_edge.runtime.errors import GarCheckpointError

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """What timm's model function fixes and a config's `model_args` may override."""

    heads: int
    mlp_ratio: float
    class_token: bool
    rope_grid_offset: float


ARCHITECTURES: Mapping[str, Architecture] = {
    "vit_pe_core_large_patch14_336": Architecture(16, 4.0, True, 1.0),
    "vit_pe_core_gigantic_patch14_448": Architecture(16, 8960 / 1536, False, 0.0),
}


@dataclass(frozen=True)
class VisionConfig:
    """Vision tower. Lengths in pixels: `tile` (a square tile's side), `patch`; in patches: `grid`, `rope_reference`."""

    tile: int
    patch: int
    dim: int
    depth: int
    heads: int
    mlp: int
    class_token: bool
    rope_grid_offset: float
    rope_reference: tuple[int, int]  # rows, columns
    layer_scale: float
    rope_theta: float = 1e4
    norm_eps: float = 1e-5

    @property
    def grid(self) -> int:
        """Patches along a tile's side."""
        return self.tile // self.patch

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's frequency scaling (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True)
class TextConfig:
    """The Llama decoder."""

    vocab: int
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None


@dataclass(frozen=True)
class GarConfig:
    """A whole GAR model. `replay_tokens[k]` is the id that `<PromptK>` repeats for its replayed features."""

    vision: VisionConfig
    text: TextConfig
    pooling: int
    image_token: int
    replay_tokens: tuple[int, ...]
    replay_spatial_scale: float

    @property
    def tile_side(self) -> int:
        """Tokens along a tile's side after pooling."""
        return self.vision.grid // self.pooling

    @property
    def tile_tokens(self) -> int:
        """P: tokens of one tile, and of one replayed region."""
        return self.tile_side**2


@dataclass(frozen=True)
class Preprocessing:
    """How the released processor prepares pixels: `(value * rescale - mean) / std` per channel."""

    tile: int
    max_tiles: int
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a checkpoint's JSON file; `GarCheckpointError` where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GarCheckpointError(f"{path.parent}: no {path.name}; is this a GAR checkpoint folder?") from None
    except (OSError, ValueError) as error:
        raise GarCheckpointError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(value, dict):
        raise GarCheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def parse_config(config: Json, where: str = "config.json") -> GarConfig:
    """The dimensions in a GAR `config.json` (`GARConfig` of the released code)."""
    try:
        return _parse_config(config)
    except KeyError as error:
        raise GarCheckpointError(f"{where}: no field {error}; is this a GAR checkpoint?") from None
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise GarCheckpointError(f"{where}: a field has a wrong type or value ({error})") from None
    except ValueError as error:
        raise GarCheckpointError(f"{where}: {error}") from None


def parse_preprocessing(config: Json, where: str = "preprocessor_config.json") -> Preprocessing:
    """Tile size, tile limit and normalisation of the released image processor."""
    kind = config.get("vision_input_type", "thumb+tile")
    if kind != "thumb+tile":
        raise GarCheckpointError(f"{where}: vision_input_type {kind!r} is not supported (GAR uses 'thumb+tile')")
    if config.get("resample", 3) != 3:
        raise GarCheckpointError(f"{where}: resample {config['resample']} is not supported (GAR uses 3, bicubic)")
    try:
        return Preprocessing(
            tile=int(config["tile_size"]),
            max_tiles=int(config["max_num_tiles"]),
            rescale=float(config["rescale_factor"]),
            mean=tuple(float(x) for x in config["image_mean"]),
            std=tuple(float(x) for x in config["image_std"]),
        )
    except KeyError as error:
        raise GarCheckpointError(f"{where}: no field {error}") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise GarCheckpointError(f"{where}: a field has a wrong type or value ({error})") from None


def _parse_config(config: Json) -> GarConfig:
    mllm = config["mllm_config"]
    vision = _parse_vision(mllm)
    pooling = int(mllm["projector_pooling_ratio"])
    if vision.grid % pooling:
        raise ValueError(
            f"projector_pooling_ratio {pooling} does not divide the {vision.grid} patches of a tile's side"
        )
    replay_tokens = tuple(int(i) for i in config["crop_tokens_ids"])
    if len(replay_tokens) != int(config["prompt_numbers"]):
        raise ValueError(f"{len(replay_tokens)} crop_tokens_ids for prompt_numbers {config['prompt_numbers']}")
    # The released code multiplies by 1 / (patch * pooling) twice; a checkpoint may carry its own factor.
    scale = config.get("replay_spatial_scale", 1.0 / (vision.patch * pooling))
    return GarConfig(
        vision=vision,
        text=_parse_text(mllm["text_config"]),
        pooling=pooling,
        image_token=int(mllm["image_token_id"]),
        replay_tokens=replay_tokens,
        replay_spatial_scale=float(scale),
    )


def _parse_vision(mllm: Json) -> VisionConfig:
    config = mllm["vision_config"]
    args, name = config["model_args"], config["architecture"]
    known = ARCHITECTURES.get(name)
    if known is None:
        raise ValueError(f"vision architecture {name!r} is unknown (known: {', '.join(ARCHITECTURES)})")
    if args.get("use_post_transformer_norm"):
        raise ValueError("vision model_args.use_post_transformer_norm = true is not supported")
    height, width = args["img_size"]
    rows, columns = args["ref_feat_shape"]
    patch = int(args.get("patch_size", 14))
    dim, heads = int(args["embed_dim"]), int(args.get("num_heads", known.heads))
    if height != width or height % patch:
        raise ValueError(f"img_size {height}x{width} is not a square of whole {patch}-pixel patches")
    if dim % heads or (dim // heads) % 4:
        raise ValueError(
            f"embed_dim {dim} over {heads} heads does not give heads of a multiple of 4, as 2-D RoPE needs"
        )
    class_token = bool(args.get("class_token", known.class_token))
    if class_token != bool(mllm.get("vision_use_cls_token", class_token)):
        raise ValueError(f"vision_use_cls_token contradicts architecture {name}")
    return VisionConfig(
        tile=int(height),
        patch=patch,
        dim=dim,
        depth=int(args["depth"]),
        heads=heads,
        mlp=int(dim * float(args.get("mlp_ratio", known.mlp_ratio))),
        class_token=class_token,
        rope_grid_offset=float(args.get("rope_grid_offset", known.rope_grid_offset)),
        rope_reference=(int(rows), int(columns)),
        layer_scale=float(args.get("init_values", 0.1)),
    )


def _parse_text(config: Json) -> TextConfig:
    for flag in ("attention_bias", "mlp_bias"):
        if config.get(flag):
            raise ValueError(f"text_config.{flag} = true is not supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"text_config.hidden_act {config['hidden_act']!r} is not supported")
    heads = int(config["num_attention_heads"])
    hidden = int(config["hidden_size"])
    rope = config.get("rope_parameters") or {}  # transformers 5 moved theta and scaling in here
    scaling = config.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
    return TextConfig(
        vocab=int(config["vocab_size"]),
        hidden=hidden,
        ffn=int(config["intermediate_size"]),
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        context=int(config["max_position_embeddings"]),
        norm_eps=float(config["rms_norm_eps"]),
        rope_theta=float(rope.get("rope_theta") or config["rope_theta"]),
        rope_scaling=_parse_scaling(scaling),
    )


def _parse_scaling(scaling: Json | None) -> RopeScaling | None:
    if scaling is None:
        return None
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ValueError(f"rope_scaling of type {kind!r} is not supported (Llama 3's is)")
    return RopeScaling(
        factor=float(scaling["factor"]),
        low_freq_factor=float(scaling["low_freq_factor"]),
        high_freq_factor=float(scaling["high_freq_factor"]),
        original_context=int(scaling["original_max_position_embeddings"]),
    )
