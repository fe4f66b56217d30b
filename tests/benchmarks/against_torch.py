"""A bundle against PyTorch doing the same work: `python tests/benchmarks/against_torch.py -m BUNDLE --size 1b`.

PyTorch's side is the project's own encoder in torch (the released arithmetic after its exact rewrites) and
transformers' Llama with its KV cache, random weights, `--dtype bfloat16` or float32. Both encode as many tiles, prefill
as many tokens and decode as many, in turn. It wants transformers (the dev extra) and memory for both models.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import LlamaConfig, LlamaForCausalLM

from gar_edge.models.config import GarConfig, parse_config
from gar_edge.models.sizes import Size
from gar_edge.models.vision import Encoder
from gar_edge.models.weights import build_module
from gar_edge.runtime.bench.report import machine
from gar_edge.runtime.bench.stages import Contestant, Setting

TILES_AT_ONCE = 4  # as the runtime does


@dataclass(frozen=True)
class Times:
    """Seconds of one round."""

    encode: float
    prefill: float
    decode: float


class Peer:
    """The same model in PyTorch."""

    def __init__(self, config: GarConfig, dtype: torch.dtype) -> None:
        text = config.text
        self._tile = config.vision.tile
        self._dtype = dtype
        self._encoder = build_module(Encoder, config, dtype)
        for parameter in self._encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        llama = LlamaConfig(
            vocab_size=text.vocab, hidden_size=text.hidden, intermediate_size=text.ffn, num_hidden_layers=text.layers,
            num_attention_heads=text.heads, num_key_value_heads=text.kv_heads, head_dim=text.head_dim,
            max_position_embeddings=text.context, rope_theta=text.rope_theta, tie_word_embeddings=True,
        )  # fmt: skip
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            self._llama = LlamaForCausalLM(llama).eval()
        finally:
            torch.set_default_dtype(before)

    @torch.inference_mode()
    def round(self, tiles: int, tokens: int, steps: int) -> Times:
        pixels = torch.zeros(tiles, 3, self._tile, self._tile, dtype=self._dtype)
        mask = torch.zeros(tiles, 1, self._tile, self._tile, dtype=self._dtype)
        encode = _seconds(
            lambda: [
                self._encoder(pixels[begin : begin + TILES_AT_ONCE], mask[begin : begin + TILES_AT_ONCE])
                for begin in range(0, tiles, TILES_AT_ONCE)
            ]
        )
        ids = torch.arange(tokens)[None] % 1000
        begin = time.perf_counter()
        out = self._llama(ids, use_cache=True, logits_to_keep=1)
        prefill = time.perf_counter() - begin
        begin = time.perf_counter()
        for _ in range(steps):
            token = out.logits[:, -1:].argmax(-1)
            out = self._llama(token, past_key_values=out.past_key_values, use_cache=True)
        return Times(encode, prefill, time.perf_counter() - begin)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main(
    model: Annotated[Path, typer.Option("-m", "--model")],
    size: Annotated[Size, typer.Option()] = Size.B1,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    tiles: Annotated[int, typer.Option(min=1)] = 4,
    new_tokens: Annotated[int, typer.Option(min=2)] = 17,
    rounds: Annotated[int, typer.Option(min=1, help="After one to warm up.")] = 1,
) -> None:
    """Print one JSON object: medians in seconds and tokens a second, and the bundle's time over PyTorch's."""
    ours = Contestant(model, Setting(tiles, (1,), new_tokens, "auto", "standard", 0), lambda step: None)
    peer = Peer(parse_config(size.preset.config()), getattr(torch, dtype))
    times = []
    for number in range(rounds + 1):
        ours.round()
        made = peer.round(tiles + 1, ours.prompt_tokens, new_tokens - 1)
        if number == 0:
            ours.samples.values.clear()
        else:
            times.append(made)
    figures = {name: statistics.median(values) for name, values in ours.samples.values.items()}
    theirs = {
        "first_token_s": statistics.median(one.encode + one.prefill for one in times),
        "encode_s": statistics.median(one.encode for one in times),
        "prefill_s": statistics.median(one.prefill for one in times),
        "decode_tokens_per_s": (new_tokens - 1) / statistics.median(one.decode for one in times),
    }
    mine = {
        "first_token_s": figures["first_token_ms"] / 1e3,
        "encode_s": figures["encode.ms"] / 1e3,
        "prefill_s": figures["prefill.ms"] / 1e3,
        "decode_tokens_per_s": figures["decode.tokens_per_s"],
    }
    ratios = {name: round(mine[name] / theirs[name], 3) for name in mine}
    print(
        json.dumps(
            {
                "bundle": {"name": ours.name} | {name: round(value, 3) for name, value in mine.items()},
                "torch": {"dtype": dtype, "version": torch.__version__}
                | {name: round(value, 3) for name, value in theirs.items()},
                "ratio": ratios,
                "prompt_tokens": ours.prompt_tokens,
                "machine": machine(),
            }
        )
    )


if __name__ == "__main__":
    typer.run(main)
