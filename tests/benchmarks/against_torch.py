"""A bundle against PyTorch doing the same work: `python tests/benchmarks/against_torch.py -m BUNDLE --size 1b`.

PyTorch's side is the project's own encoder in torch (the released arithmetic after its exact rewrites) and
transformers' Llama with its KV cache, random weights, `--dtype bfloat16` or float32. Both encode as many tiles, prefill
as many tokens and decode as many, in turn. It wants transformers (the dev extra) and memory for both models.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from llama import llama_config
from side_by_side import PromptTokens, Speed, Work, compare, cores, load
from transformers import LlamaForCausalLM

from gar_edge.models.config import GarConfig, parse_config
from gar_edge.models.sizes import Size
from gar_edge.models.vision import Encoder
from gar_edge.models.weights import build_module


class Torch:
    """The same model in PyTorch."""

    def __init__(self, config: GarConfig, dtype: torch.dtype, at_once: int) -> None:
        """at_once: tiles that one run of the encoder takes."""
        self._tile = config.vision.tile
        self._at_once = at_once
        self._dtype = dtype
        self._encoder = build_module(Encoder, config, dtype)
        for parameter in self._encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            self._llama = LlamaForCausalLM(llama_config(config.text)).eval()
        finally:
            torch.set_default_dtype(before)

    @torch.inference_mode()
    def round(self, work: Work) -> Speed:
        pixels = torch.zeros(work.tiles, 3, self._tile, self._tile, dtype=self._dtype)
        mask = torch.zeros(work.tiles, 1, self._tile, self._tile, dtype=self._dtype)
        started = time.perf_counter()
        for begin in range(0, work.tiles, self._at_once):
            self._encoder(pixels[begin : begin + self._at_once], mask[begin : begin + self._at_once])
        encoded = time.perf_counter()
        out = self._llama(torch.arange(work.tokens)[None] % 1000, use_cache=True, logits_to_keep=1)
        prefilled = time.perf_counter()
        for _ in range(work.steps):
            token = out.logits[:, -1:].argmax(-1)
            out = self._llama(token, past_key_values=out.past_key_values, use_cache=True)
        decoded = time.perf_counter()
        return Speed(
            work.tokens / (prefilled - encoded), work.steps / (decoded - prefilled), work.tiles / (encoded - started)
        )


def main(
    model: Annotated[Path, typer.Option("-m", "--model")],
    size: Annotated[Size, typer.Option()] = Size.B1,
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    tiles: Annotated[int, typer.Option(min=1, help="With the thumbnail.")] = 5,
    tokens: PromptTokens = 1843,
    new_tokens: Annotated[int, typer.Option(min=2)] = 33,
    rounds: Annotated[int, typer.Option(min=1, help="After one to warm up.")] = 1,
) -> None:
    """Print one JSON object: both one's speed by stage, seconds to the first token, and the bundle's over PyTorch's."""
    config = parse_config(size.preset.config())
    gar = load(model, config)
    torch.set_num_threads(cores())
    peer = Torch(config, getattr(torch, dtype), gar.pipeline.vision.at_once)
    about = {"name": "torch", "dtype": dtype, "version": torch.__version__}
    print(compare(gar, peer, about, Work(tiles, tokens, new_tokens - 1), rounds))


if __name__ == "__main__":
    typer.run(main)
