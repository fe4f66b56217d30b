"""OpenVINO's side of `against.py`, through optimum-intel, as its users export and call a Llama.

side_openvino.py build CHECKPOINT FOLDER int8    weights of eight bits per channel, its default for such a model
side_openvino.py run FOLDER float32|bfloat16     arithmetic between them
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from time import perf_counter

from rounds import Speed, Work, answer, cores

HINTS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names


def build(checkpoint: str, folder: str, precision: str) -> None:
    from optimum.intel import OVModelForCausalLM

    assert precision == "int8"
    model = OVModelForCausalLM.from_pretrained(checkpoint, export=True, load_in_8bit=True, compile=False)
    model.save_pretrained(folder)


def load() -> tuple[str, Callable[[Work], Speed]]:
    import torch
    from optimum.intel import OVModelForCausalLM

    options = {"INFERENCE_NUM_THREADS": str(cores()), "INFERENCE_PRECISION_HINT": HINTS[sys.argv[3]]}
    model = OVModelForCausalLM.from_pretrained(sys.argv[2], ov_config=options)
    vocab = model.config.vocab_size

    def work_through(work: Work) -> Speed:
        started = perf_counter()
        prompt = torch.arange(work.tokens)[None] % min(1000, vocab)
        mask = torch.ones_like(prompt)
        out = model(input_ids=prompt, attention_mask=mask)
        token = out.logits[:, -1:].argmax(-1)
        prefilled = perf_counter()
        for _ in range(work.steps):
            mask = torch.cat([mask, mask[:, :1]], dim=1)
            out = model(input_ids=token, attention_mask=mask, past_key_values=out.past_key_values)
            token = out.logits[:, -1:].argmax(-1)
        return Speed(work.tokens / (prefilled - started), work.steps / (perf_counter() - prefilled))

    return f"optimum-intel {version('optimum-intel')}, OpenVINO {version('openvino')}", work_through


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(*sys.argv[2:])
    else:
        answer(load)
