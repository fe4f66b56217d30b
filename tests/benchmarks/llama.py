"""The decoder as transformers knows it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gar_edge.models.config import TextConfig


def llama_config(text: TextConfig) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=text.vocab, hidden_size=text.hidden, intermediate_size=text.ffn, num_hidden_layers=text.layers,
        num_attention_heads=text.heads, num_key_value_heads=text.kv_heads, head_dim=text.head_dim,
        max_position_embeddings=text.context, rope_theta=text.rope_theta, tie_word_embeddings=True,
    )  # fmt: skip


def write_checkpoint(text: TextConfig, folder: Path) -> None:
    """Random weights in bfloat16, as a checkpoint of transformers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        LlamaForCausalLM(llama_config(text)).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
