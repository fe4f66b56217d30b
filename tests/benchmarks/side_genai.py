"""onnxruntime-genai's side of `against.py`: its own builder's model of a checkpoint, as its users make and call it.

side_genai.py build CHECKPOINT FOLDER int8|int4    weights in blocks of 32 and products of int8, its defaults for
                                                   processors, with logits of the last position only
side_genai.py run FOLDER
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from rounds import Speed, Work, answer, cores


def build(checkpoint: str, folder: str, precision: str) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    builder = importlib.util.find_spec("onnxruntime_genai.models.builder")
    assert builder is not None
    assert builder.origin is not None
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(checkpoint)
    options = ["-i", checkpoint, "-o", folder, "-c", folder + ".cache", "-p", precision, "-e", "cpu"]
    options += ["--extra_options", "prune_lm_head=true"]
    subprocess.run([sys.executable, builder.origin, *options], check=True)


def load() -> tuple[str, Callable[[Work], Speed]]:
    import onnxruntime_genai

    folder = Path(sys.argv[2])
    config = onnxruntime_genai.Config(str(folder))
    options = {"intra_op_num_threads": cores()}  # by itself it takes half of the cores
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    model = onnxruntime_genai.Model(config)
    vocab = json.loads((folder / "genai_config.json").read_text())["model"]["vocab_size"]

    def work_through(work: Work) -> Speed:
        params = onnxruntime_genai.GeneratorParams(model)
        most = work.tokens + work.steps + 1
        params.set_search_options(max_length=most, min_length=most, do_sample=False, batch_size=1)
        generator = onnxruntime_genai.Generator(model, params)
        started = perf_counter()
        generator.append_tokens([token % min(1000, vocab) for token in range(work.tokens)])
        generator.generate_next_token()
        prefilled = perf_counter()
        for _ in range(work.steps):
            generator.generate_next_token()
        return Speed(work.tokens / (prefilled - started), work.steps / (perf_counter() - prefilled))

    return f"onnxruntime-genai {version('onnxruntime-genai')}", work_through


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(*sys.argv[2:])
    else:
        answer(load)
