"""The decoder as transformers knows it."""

from __future__ import annotations

from transformers import LlamaConfig

from gar_edge.models.config import TextConfig


def llama_config(text: TextConfig) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=text.vocab, hidden_size=text.hidden, intermediate_size=text.ffn, num_hidden_layers=text.layers,
        num_attention_heads=text.heads, num_key_value_heads=text.kv_heads, head_dim=text.head_dim,
        max_position_embeddings=text.context, rope_theta=text.rope_theta, tie_word_embeddings=True,
    )  # fmt: skip
