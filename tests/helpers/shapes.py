"""Small checkpoints' shapes."""

from __future__ import annotations

from dataclasses import replace

from gar_edge.models.sizes import Preset, Size

# Small, and as unlike each other as the 1B and the 8B are; other ids, depths, tiles and limits than either.
SHAPES: dict[str, Preset] = {
    "tied": replace(
        Size.NANO.preset, tile=56, vision_dim=48, vision_depth=2, vision_heads=3, hidden=64, ffn=96, layers=2, heads=4,
        kv_heads=2, head_dim=16, first_special_token=300, context=1024, max_tiles=6, rope_theta=5e5,
        rope_scaling={"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 8192},
    ),
    "untied": replace(
        Size.NANO.preset, architecture="vit_pe_core_gigantic_patch14_448", class_token=False, tied=False, tile=112,
        vision_dim=32, vision_depth=3, vision_heads=2, vision_mlp_ratio=2.5, hidden=48, ffn=64, layers=3, heads=6,
        kv_heads=3, head_dim=8, first_special_token=256, context=2048, max_tiles=3, replay_spatial_scale=None,
    ),
}  # fmt: skip


# The smallest: four patches to a tile, 300 words: 300 bytes and unused places, 12 + 6 special tokens.
SMALLEST = replace(
    Size.NANO.preset, tile=28, vision_dim=16, vision_depth=1, vision_heads=2, hidden=16, ffn=24, layers=2, heads=4,
    kv_heads=2, head_dim=4, first_special_token=300, context=512, max_tiles=4,
)  # fmt: skip
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
