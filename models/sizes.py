"""The sizes by name: their dimensions as a released `config.json`, and where their weights live."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Size(str, Enum):
    """The models that `--size` names."""

    NANO = "nano"
    B1 = "1b"
    B8 = "8b"

    @property
    def preset(self) -> Preset:
        return _PRESETS[self]


@dataclass(frozen=True)
class Preset:
    """What a size's `config.json` and `preprocessor_config.json` hold, and the hub repository (None: shipped here)."""

    hub: str | None
    architecture: str
    tile: int
    patch: int
    vision_dim: int
    vision_depth: int
    vision_heads: int
    vision_mlp_ratio: float
    class_token: bool
    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    first_special_token: int
    context: int
    rope_theta: float
    rope_scaling: dict[str, Any] | None
    tied: bool
    max_tiles: int
    pooling: int = 2
    replay_spatial_scale: float | None = None

    def config(self) -> dict[str, Any]:
        """The fields of the released `config.json` that define the model."""
        ids = SpecialTokens(self.first_special_token)
        grid = self.tile // self.patch
        config: dict[str, Any] = {
            "model_type": "GAR",
            "architectures": ["GARModel"],
            "prompt_numbers": PROMPTS,
            "crop_tokens_ids": ids.replay,
            "kernel_size": [self.patch, self.patch],
            "mask_path_embedding_out_channels": self.vision_dim,
            "mllm_config": {
                "model_type": "perception_lm",
                "image_token_id": ids.image,
                "video_token_id": ids.video,
                "projector_pooling_ratio": self.pooling,
                "vision_use_cls_token": self.class_token,
                "tie_word_embeddings": self.tied,
                "vision_config": {
                    "model_type": "timm_wrapper",
                    "architecture": self.architecture,
                    "model_args": {
                        "embed_dim": self.vision_dim,
                        "depth": self.vision_depth,
                        "num_heads": self.vision_heads,
                        "mlp_ratio": self.vision_mlp_ratio,
                        "patch_size": self.patch,
                        "img_size": [self.tile, self.tile],
                        "ref_feat_shape": [grid, grid],
                        "init_values": 0.1,
                        "global_pool": "",
                        "use_post_transformer_norm": False,
                    },
                },
                "text_config": {
                    "model_type": "llama",
                    "vocab_size": ids.vocab,
                    "hidden_size": self.hidden,
                    "intermediate_size": self.ffn,
                    "num_hidden_layers": self.layers,
                    "num_attention_heads": self.heads,
                    "num_key_value_heads": self.kv_heads,
                    "head_dim": self.head_dim,
                    "max_position_embeddings": self.context,
                    "rms_norm_eps": 1e-5,
                    "rope_theta": self.rope_theta,
                    "rope_scaling": self.rope_scaling,
                    "hidden_act": "silu",
                    "attention_bias": False,
                    "mlp_bias": False,
                    "tie_word_embeddings": self.tied,
                    "bos_token_id": ids.begin,
                    "eos_token_id": ids.end_of_turn,
                },
            },
        }
        if self.replay_spatial_scale is not None:
            config["replay_spatial_scale"] = self.replay_spatial_scale
        return config

    def preprocessor_config(self) -> dict[str, Any]:
        """The fields of the released `preprocessor_config.json`."""
        return {
            "image_processor_type": "PerceptionLMImageProcessorFast",
            "vision_input_type": "thumb+tile",
            "tile_size": self.tile,
            "max_num_tiles": self.max_tiles,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }


PROMPTS = 5  # regions in one prompt, in every released checkpoint


@dataclass(frozen=True)
class SpecialTokens:
    """The released tokenizer's special tokens, laid out from its first one on (128000 in the released models)."""

    first: int

    @property
    def texts(self) -> list[str]:
        """All of them in the order of their ids; Llama 3 reserves 256 places, GAR adds six after them."""
        named = [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|image|>",
            "<|video|>",
            "<|reserved_special_token_2|>",
            "<|reserved_special_token_3|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|reserved_special_token_4|>",
            "<|eot_id|>",
            "<|reserved_special_token_5|>",
            "<|reserved_special_token_6|>",
        ]
        reserved = 256 if self.first >= LLAMA_WORDS else len(named)
        rest = [f"<|reserved_special_token_{i - 5}|>" for i in range(len(named), reserved)]
        return named + rest + [f"<Prompt{k}>" for k in range(PROMPTS)] + ["<NO_Prompt>"]

    def id(self, text: str) -> int:
        return self.first + self.texts.index(text)

    @property
    def begin(self) -> int:
        return self.id("<|begin_of_text|>")

    @property
    def image(self) -> int:
        return self.id("<|image|>")

    @property
    def video(self) -> int:
        return self.id("<|video|>")

    @property
    def end_of_turn(self) -> int:
        return self.id("<|eot_id|>")

    @property
    def stops(self) -> list[int]:
        return [self.id("<|end_of_text|>"), self.end_of_turn]

    @property
    def replay(self) -> list[int]:
        """`<PromptK>` is replayed through `<|reserved_special_token_{K+2}|>`."""
        return [self.id(f"<|reserved_special_token_{k + 2}|>") for k in range(PROMPTS)]

    @property
    def vocab(self) -> int:
        return self.first + len(self.texts)


LLAMA_WORDS = 128000  # ordinary tokens in Llama 3's tokenizer

_PRESETS = {
    Size.NANO: Preset(
        hub=None,
        architecture="vit_pe_core_large_patch14_336",
        tile=112,
        patch=14,
        vision_dim=128,
        vision_depth=4,
        vision_heads=4,
        vision_mlp_ratio=4.0,
        class_token=True,
        hidden=128,
        ffn=384,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=32,
        first_special_token=697,
        context=1024,
        rope_theta=1e4,
        rope_scaling=None,
        tied=True,
        max_tiles=4,
        replay_spatial_scale=1.0,
    ),
    Size.B1: Preset(
        hub="HaochenWang/GAR-1B",
        architecture="vit_pe_core_large_patch14_336",
        tile=448,
        patch=14,
        vision_dim=1024,
        vision_depth=23,
        vision_heads=16,
        vision_mlp_ratio=4.0,
        class_token=True,
        hidden=2048,
        ffn=8192,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=64,
        first_special_token=LLAMA_WORDS,
        context=11520,
        rope_theta=5e5,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        tied=True,
        max_tiles=16,
    ),
    Size.B8: Preset(
        hub="HaochenWang/GAR-8B",
        architecture="vit_pe_core_gigantic_patch14_448",
        tile=448,
        patch=14,
        vision_dim=1536,
        vision_depth=47,
        vision_heads=16,
        vision_mlp_ratio=8960 / 1536,
        class_token=False,
        hidden=4096,
        ffn=14336,
        layers=32,
        heads=32,
        kv_heads=8,
        head_dim=128,
        first_special_token=LLAMA_WORDS,
        context=11520,
        rope_theta=5e5,
        rope_scaling=None,
        tied=False,
        max_tiles=8,
    ),
}
