"""PyTorch's side of `against.py`: `side_torch.py SIZE float32|bfloat16`.

The project's own encoder in torch (the released arithmetic after its exact rewrites) and transformers' Llama with its
KV cache, random weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter

import torch
from llama import llama_config
from rounds import Speed, Work, answer, cores
from transformers import LlamaForCausalLM

from gar_edge.models.config import parse_config
from gar_edge.models.sizes import Size
from gar_edge.models.vision import Encoder
from gar_edge.models.weights import build_module


def load() -> tuple[str, Callable[[Work], Speed]]:
    config = parse_config(Size(sys.argv[1]).preset.config())
    dtype = getattr(torch, sys.argv[2])
    torch.set_num_threads(cores())
    encoder = build_module(Encoder, config, dtype)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    torch.set_default_dtype(dtype)
    llama = LlamaForCausalLM(llama_config(config.text)).eval()
    side = config.vision.tile

    @torch.inference_mode()
    def work_through(work: Work) -> Speed:
        pixels = torch.zeros(1, 3, side, side, dtype=dtype)
        mask = torch.zeros(1, 1, side, side, dtype=dtype)
        started = perf_counter()
        for _ in range(work.tiles):  # one at a time, as bundles of the 1B on the processor
            encoder(pixels, mask)
        encoded = perf_counter()
        out = llama(torch.arange(work.tokens)[None] % min(1000, config.text.vocab), use_cache=True, logits_to_keep=1)
        prefilled = perf_counter()
        for _ in range(work.steps):
            token = out.logits[:, -1:].argmax(-1)
            out = llama(token, past_key_values=out.past_key_values, use_cache=True)
        decoded = perf_counter()
        tiles = work.tiles / (encoded - started) if work.tiles else None
        return Speed(work.tokens / (prefilled - encoded), work.steps / (decoded - prefilled), tiles)

    return f"torch {torch.__version__}", work_through


if __name__ == "__main__":
    answer(load)
