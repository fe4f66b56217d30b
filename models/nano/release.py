"""Writes a trained model in the released checkpoint format: the inverse of `weights.py`'s recipes.

What the recipes merged cannot be told apart again, so one exact choice is made: LayerScale is one, the mask
convolution is spread evenly over its three channels, the class token carries its own position.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from gar_edge.models import weights
from gar_edge.models.config import GarConfig, VisionConfig
from gar_edge.models.llama import Decoder
from gar_edge.models.sizes import Preset, SpecialTokens
from gar_edge.models.vision import Encoder

CHAT_TEMPLATE = "chat_template.jinja"


def released_tensors(config: GarConfig, encoder: Encoder, decoder: Decoder) -> dict[str, Tensor]:
    """Every tensor of `weights.expected_shapes` (head tied), float32, contiguous."""
    tensors = _vision_tensors(config.vision, dict(encoder.named_parameters()))
    tensors |= _language_tensors(config, dict(decoder.named_parameters()))
    return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}


def _vision_tensors(config: VisionConfig, ours: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    theirs: dict[str, Tensor] = {}
    theirs[weights.VISION + "patch_embed.proj.weight"] = ours["patch.weight"]
    theirs[weights.MASK_PATCH] = (ours["mask_patch.weight"] / 3).expand(-1, 3, -1, -1)
    positions = ours["positions"]
    if config.class_token:
        theirs[weights.VISION + "cls_token"] = ours["class_token"]
        positions = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)  # type: ignore[assignment]
    theirs[weights.VISION + "pos_embed"] = positions
    for part in ("weight", "bias"):
        theirs[f"{weights.VISION}norm_pre.{part}"] = ours[f"norm_pre.{part}"]
        for name in ("linear_1", "linear_2"):
            theirs[f"{weights.PROJECTOR}{name}.{part}"] = _rows(ours[f"{name}.{part}"])
    neighbours = _neighbours(config)
    for index in range(config.depth):
        mine, block = f"blocks.{index}.", f"{weights.VISION}blocks.{index}."
        for gamma in ("gamma_1", "gamma_2"):
            theirs[block + gamma] = torch.ones(config.dim)
        for part in ("weight", "bias"):
            for norm in ("norm1", "norm2"):
                theirs[f"{block}{norm}.{part}"] = ours[f"{mine}{norm}.{part}"]
            rows = {name: _rows(ours[f"{mine}{name}.{part}"]) for name in ("attn.qkv", "attn.proj", "fc1", "fc2")}
            theirs[f"{block}attn.qkv.{part}"] = rows["attn.qkv"][neighbours]
            theirs[f"{block}attn.proj.{part}"] = rows["attn.proj"]
            theirs[f"{block}mlp.fc1.{part}"] = rows["fc1"]
            theirs[f"{block}mlp.fc2.{part}"] = rows["fc2"]
    return theirs


def _rows(parameter: Tensor) -> Tensor:
    """A weight [in,out] as [out,in]; a bias as it is."""
    return parameter.T if parameter.ndim == 2 else parameter


def _neighbours(config: VisionConfig) -> Tensor:
    """Order of qkv's output rows that turns RoPE's halves (i, i + head_dim/2) back into pairs (2i, 2i+1)."""
    halves = torch.arange(config.head_dim).unflatten(0, (2, -1)).T.flatten()
    head = torch.arange(config.heads)[:, None] * config.head_dim + halves
    return torch.cat([head.flatten(), config.dim + head.flatten(), torch.arange(2 * config.dim, 3 * config.dim)])


def _language_tensors(config: GarConfig, ours: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    theirs: dict[str, Tensor] = {weights.TOKEN_TABLE: ours["head"], weights.LLAMA + "norm.weight": ours["norm.weight"]}
    for index in range(config.text.layers):
        mine, layer = f"layers.{index}.", f"{weights.LLAMA}layers.{index}."
        theirs[layer + "input_layernorm.weight"] = ours[mine + "input_norm.weight"]
        theirs[layer + "post_attention_layernorm.weight"] = ours[mine + "post_norm.weight"]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            theirs[f"{layer}self_attn.{name}.weight"] = ours[f"{mine}attn.{name}.weight"].T
        for name in ("gate_proj", "up_proj", "down_proj"):
            theirs[f"{layer}mlp.{name}.weight"] = ours[f"{mine}{name}.weight"].T
    return theirs


def save(folder: Path, preset: Preset, tensors: Mapping[str, Tensor], tokenizer: Tokenizer, template: str) -> None:
    """A whole checkpoint folder, its weights in fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    tokens = SpecialTokens(preset.first_special_token)
    texts = {"bos_token": tokens.texts[0], "eos_token": "<|eot_id|>", "pad_token": tokens.texts[1]}
    _write(folder / "config.json", preset.config())
    _write(folder / "preprocessor_config.json", preset.preprocessor_config())
    _write(
        folder / "generation_config.json",
        {"bos_token_id": tokens.begin, "eos_token_id": tokens.stops, "do_sample": False},
    )
    _write(
        folder / "tokenizer_config.json",
        {
            **texts,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "image_token": "<|image|>",
            "video_token": "<|video|>",
            "model_max_length": preset.context,
        },
    )
    _write(folder / "special_tokens_map.json", texts)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / CHAT_TEMPLATE).write_text(template, encoding="utf-8")


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
