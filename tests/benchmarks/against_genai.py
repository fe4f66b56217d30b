"""A bundle's decoder against onnxruntime-genai's build of the same Llama, on the processor.

    python tests/benchmarks/against_genai.py -m BUNDLE --size 1b --precision int8 --install

onnxruntime-genai's own builder makes its model from random weights, once, into `--peer`: weights in blocks of 32 and
products of int8, its defaults for processors, with logits of the last position only. Both prefill as many tokens and
decode as many greedily, in turn, on all cores. In int4 its head has four bits, the bundle's has eight.
`--install` adds onnxruntime-genai to this Python environment.
"""

from __future__ import annotations

import enum
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from llama import llama_config
from side_by_side import PromptTokens, Speed, Work, compare, cores, load

from gar_edge.models.config import TextConfig, parse_config
from gar_edge.models.sizes import Size

PACKAGES = ("onnxruntime-genai", "onnx-ir", "tqdm")  # with what its builder imports


class PeerPrecision(str, enum.Enum):
    INT8 = "int8"
    INT4 = "int4"


class Genai:
    """A model of onnxruntime-genai's builder."""

    def __init__(self, folder: Path, vocab: int) -> None:
        import onnxruntime_genai

        self._library: Any = onnxruntime_genai
        config = onnxruntime_genai.Config(str(folder))
        options = {"intra_op_num_threads": cores()}  # by itself it takes half of the cores
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = onnxruntime_genai.Model(config)
        self._vocab = vocab

    def round(self, work: Work) -> Speed:
        params = self._library.GeneratorParams(self._model)
        most = work.tokens + work.steps + 1
        params.set_search_options(max_length=most, min_length=most, do_sample=False, batch_size=1)
        generator = self._library.Generator(self._model, params)
        started = time.perf_counter()
        generator.append_tokens([token % min(1000, self._vocab) for token in range(work.tokens)])
        generator.generate_next_token()
        prefilled = time.perf_counter()
        for _ in range(work.steps):
            generator.generate_next_token()
        return Speed(work.tokens / (prefilled - started), work.steps / (time.perf_counter() - prefilled))


def build_peer(text: TextConfig, precision: PeerPrecision, folder: Path) -> None:
    """Random weights as a checkpoint of transformers, then the builder as its users call it."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    builder = importlib.util.find_spec("onnxruntime_genai.models.builder")
    assert builder is not None
    assert builder.origin is not None
    before = torch.get_default_dtype()
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        torch.set_default_dtype(torch.bfloat16)
        try:
            LlamaForCausalLM(llama_config(text)).save_pretrained(made)
        finally:
            torch.set_default_dtype(before)
        words = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1}, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(made)
        options = ["-i", made, "-o", str(folder), "-c", made, "-p", precision.value, "-e", "cpu"]
        options += ["--extra_options", "prune_lm_head=true"]
        subprocess.run([sys.executable, builder.origin, *options], check=True, stdout=sys.stderr)


def main(
    model: Annotated[Path, typer.Option("-m", "--model")],
    size: Annotated[Size, typer.Option()] = Size.B1,
    precision: Annotated[PeerPrecision, typer.Option(help="Of the peer's weights.")] = PeerPrecision.INT8,
    peer: Annotated[Path | None, typer.Option(help="Folder of its model; it is built where there is none.")] = None,
    tokens: PromptTokens = 1843,
    new_tokens: Annotated[int, typer.Option(min=2)] = 33,
    rounds: Annotated[int, typer.Option(min=1, help="After one to warm up.")] = 3,
    install: Annotated[bool, typer.Option("--install", help="Install onnxruntime-genai first.")] = False,
) -> None:
    """Print one JSON object: tokens a second of both, and the bundle's over onnxruntime-genai's."""
    if install:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *PACKAGES], check=True, stdout=sys.stderr)
        importlib.invalidate_caches()
    if importlib.util.find_spec("onnxruntime_genai") is None:
        raise SystemExit("onnxruntime-genai is not installed: add --install.")
    config = parse_config(size.preset.config())
    text = config.text
    folder = peer or Path(tempfile.gettempdir()) / f"genai-{size.value}-{precision.value}"
    if not (folder / "genai_config.json").exists():
        build_peer(text, precision, folder)
    about = {"name": "onnxruntime-genai", "precision": precision.value, "version": version("onnxruntime-genai")}
    print(compare(load(model, config), Genai(folder, text.vocab), about, Work(0, tokens, new_tokens - 1), rounds))


if __name__ == "__main__":
    typer.run(main)
