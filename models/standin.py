"""Random-weight checkpoints of any size, tokenizer included: to try a device, or the code, before fetching weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from gar_edge.models import checkpoint as files
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.config import parse_config, parse_preprocessing
from gar_edge.models.sizes import Preset, Size, SpecialTokens
from gar_edge.models.weights import RandomWeights, expected_shapes

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)

CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n" + SYSTEM + "<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{%- for part in message['content'] if part['type'] == 'image' %}{{- '<|image|>' }}{%- endfor %}"
    "{%- for part in message['content'] if part['type'] == 'text' %}{{- part['text'] | trim }}{%- endfor %}"
    "{{- '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)


def byte_tokenizer(special: SpecialTokens) -> Tokenizer:
    """A byte-level tokenizer without merges: bytes, unused places up to the first special token, special tokens."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {f"<unused{i}>": i for i in range(len(vocab), special.first)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special.texts])
    return tokenizer


def random_checkpoint(size: Size, seed: int = 0) -> Checkpoint:
    """A checkpoint of a size's true dimensions with reproducible random weights; nothing is stored or downloaded."""
    return random_checkpoint_of(size.preset, f"gar-{size.value}-random", seed)


def random_checkpoint_of(preset: Preset, name: str, seed: int = 0) -> Checkpoint:
    """A checkpoint of any dimensions, with reproducible random weights."""
    config = parse_config(preset.config())
    special = SpecialTokens(preset.first_special_token)
    return Checkpoint(
        config=config,
        preprocessing=parse_preprocessing(preset.preprocessor_config()),
        weights=RandomWeights(expected_shapes(config, preset.tied), config.vision.layer_scale, seed),
        tied=preset.tied,
        tokenizer_json=byte_tokenizer(special).to_str(),
        chat_template=CHAT_TEMPLATE,
        stop_tokens=tuple(special.stops),
        begin_text=special.texts[0],
        name=name,
        origin=f"random weights (seed {seed})",
    )


def write_checkpoint(folder: Path, preset: Preset, seed: int = 0) -> None:
    """Write such a checkpoint as a folder in the released format (one safetensors file, in memory at once)."""
    checkpoint = random_checkpoint_of(preset, folder.name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / files.CONFIG, preset.config())
    _write_json(folder / files.PREPROCESSOR, preset.preprocessor_config())
    _write_json(folder / files.GENERATION, {"eos_token_id": list(checkpoint.stop_tokens), "do_sample": False})
    _write_json(folder / files.TOKENIZER_CONFIG, {"bos_token": checkpoint.begin_text})
    (folder / files.TOKENIZER).write_text(checkpoint.tokenizer_json, encoding="utf-8")
    (folder / files.CHAT_TEMPLATE).write_text(checkpoint.chat_template, encoding="utf-8")
    tensors = {name: checkpoint.weights.tensor(name) for name in checkpoint.weights.names()}
    save_file(tensors, folder / files.WEIGHTS)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
