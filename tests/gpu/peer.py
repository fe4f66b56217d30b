"""The same model in PyTorch, for comparison: the project's encoder with fused attention, and transformers' Llama."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from gar_edge.models.config import parse_config
from gar_edge.models.sizes import Size
from gar_edge.models.vision import Encoder, VisionAttention
from gar_edge.models.weights import build_module

AT_ONCE = 4  # tiles in one run of the encoder, as the runtime's on GPUs


class FusedAttention(nn.Module):
    """An encoder's attention by `scaled_dot_product_attention`, as PyTorch would be used."""

    def __init__(self, plain: VisionAttention) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = plain.qkv, plain.proj, plain.heads

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(rotated(query, cos, sin), rotated(key, cos, sin), value)
        return self.proj(attended.transpose(1, 2).flatten(-2))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Peer:
    """A size's model with random weights on a device."""

    def __init__(self, size: str, device: str, dtype: torch.dtype) -> None:
        config = parse_config(Size(size).preset.config())
        text = config.text
        self.device, self.dtype, self.tile = torch.device(device), dtype, config.vision.tile
        self.encoder = build_module(Encoder, config, dtype)
        for block in self.encoder.blocks:
            block.attn = FusedAttention(block.attn)
        for parameter in self.encoder.parameters():
            nn.init.normal_(parameter, std=0.02)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            self.llama = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=text.vocab, hidden_size=text.hidden, intermediate_size=text.ffn,
                    num_hidden_layers=text.layers, num_attention_heads=text.heads, num_key_value_heads=text.kv_heads,
                    head_dim=text.head_dim, max_position_embeddings=text.context, rope_theta=text.rope_theta,
                    tie_word_embeddings=True, attn_implementation="sdpa",
                )
            ).eval()  # fmt: skip
        finally:
            torch.set_default_dtype(before)
        self.encoder.to(self.device)
        self.llama.to(self.device)
        self.vocab = text.vocab

    @torch.inference_mode()
    def round(self, tiles: int, tokens: int, new_tokens: int) -> tuple[float, float]:
        """Milliseconds to the first token, bytes of tiles on the host at first; tokens a second behind it."""
        pixels = torch.zeros(tiles, 3, self.tile, self.tile, dtype=self.dtype)
        mask = torch.zeros(tiles, 1, self.tile, self.tile, dtype=self.dtype)
        self._wait()
        begin = time.perf_counter()
        pixels, mask = pixels.to(self.device), mask.to(self.device)
        for first in range(0, tiles, AT_ONCE):
            self.encoder(pixels[first : first + AT_ONCE], mask[first : first + AT_ONCE])
        ids = torch.arange(tokens, device=self.device)[None] % min(1000, self.vocab)
        out = self.llama(ids, use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1:].argmax(-1)
        token.cpu()
        told = time.perf_counter()
        for _ in range(new_tokens - 1):
            out = self.llama(token, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
            token.cpu()  # whoever streams an answer reads every token
        return (told - begin) * 1e3, (new_tokens - 1) / (time.perf_counter() - told)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
