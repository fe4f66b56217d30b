"""Reading a released checkpoint's folder: what is taken from where, and what stands in for what is not there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.spoilt import edit_json, edit_tensors, refused_checkpoint, write_json
from safetensors.torch import load_file

from gar_edge.models.checkpoint import Checkpoint, open_checkpoint
from gar_edge.models.config import parse_config
from gar_edge.models.sizes import Size
from gar_edge.models.weights import HEAD, LLAMA, MASK_PATCH, PROJECTOR, VISION, expected_shapes

VOCAB = 318


@pytest.fixture(scope="module")
def opened(checkpoint_folder: Path) -> Checkpoint:
    return open_checkpoint(checkpoint_folder)


def test_the_dimensions_come_from_the_config(opened: Checkpoint) -> None:
    vision, text = opened.config.vision, opened.config.text
    assert (vision.tile, vision.patch, vision.grid) == (28, 14, 2)
    assert (vision.dim, vision.depth, vision.heads, vision.mlp) == (16, 1, 2, 64)
    assert (text.vocab, text.hidden, text.ffn, text.layers) == (VOCAB, 16, 24, 2)
    assert (text.heads, text.kv_heads, text.head_dim, text.context) == (4, 2, 4, 512)


def test_pooling_gives_the_tokens_of_a_tile(opened: Checkpoint) -> None:
    assert opened.config.tile_tokens == 1  # 2x2 patches pooled 2x2


def test_the_special_ids_come_from_the_config(opened: Checkpoint) -> None:
    # Counted from the first special token as the released ids are from 128000.
    assert opened.config.image_token == 300 + 2
    assert opened.config.replay_tokens == (304, 305, 308, 310, 311)


def test_the_preprocessing_comes_from_the_preprocessor_config(opened: Checkpoint) -> None:
    found = opened.preprocessing
    assert (found.tile, found.max_tiles, found.mean, found.std) == (28, 4, (0.5,) * 3, (0.5,) * 3)
    assert found.rescale == pytest.approx(1 / 255)


def test_the_folder_names_the_checkpoint(opened: Checkpoint, checkpoint_folder: Path) -> None:
    assert (opened.name, opened.origin, opened.revision) == ("GAR-tiny", str(checkpoint_folder), None)


def test_a_hub_name_replaces_the_folders(checkpoint_folder: Path) -> None:
    found = open_checkpoint(checkpoint_folder, "HaochenWang/GAR-1B", "abc")
    assert (found.name, found.origin, found.revision) == ("HaochenWang/GAR-1B", "HaochenWang/GAR-1B", "abc")


def test_every_tensor_is_read_as_it_was_written(opened: Checkpoint, checkpoint_folder: Path) -> None:
    written = load_file(checkpoint_folder / "model.safetensors")
    assert set(opened.weights.names()) == set(written)
    for name, tensor in written.items():
        assert opened.weights.shape(name) == tuple(tensor.shape)
        assert torch.equal(opened.weights.tensor(name), tensor)


def test_opening_reads_no_weights(checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("opened for reading")

    monkeypatch.setattr("gar_edge.models.checkpoint.safe_open", unexpected)
    open_checkpoint(checkpoint_folder)


def test_shards_are_read_through_their_index(sharded_checkpoint: Path, checkpoint_folder: Path) -> None:
    found = open_checkpoint(sharded_checkpoint).weights
    written = load_file(checkpoint_folder / "model.safetensors")
    assert set(found.names()) == set(written)
    assert all(torch.equal(found.tensor(name), tensor) for name, tensor in written.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_tensors_keep_their_dtype(own_checkpoint: Path, dtype: torch.dtype) -> None:
    edit_tensors(own_checkpoint, lambda tensors: tensors.update({k: v.to(dtype) for k, v in tensors.items()}))
    written = load_file(own_checkpoint / "model.safetensors")
    found = open_checkpoint(own_checkpoint).weights.tensor(MASK_PATCH)
    assert found.dtype == dtype
    assert torch.equal(found, written[MASK_PATCH])


def set_tied(own_checkpoint: Path, tied: bool) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["mllm_config"]["tie_word_embeddings"] = tied
        config["mllm_config"]["text_config"]["tie_word_embeddings"] = tied

    edit_json(own_checkpoint / "config.json", edit)


def test_a_head_unties_a_config_that_says_tied(own_checkpoint: Path) -> None:
    set_tied(own_checkpoint, True)
    edit_tensors(own_checkpoint, lambda tensors: tensors.update({HEAD: torch.zeros(VOCAB, 16)}))
    assert open_checkpoint(own_checkpoint).tied is False


def test_no_head_ties_a_config_that_says_untied(own_checkpoint: Path) -> None:
    set_tied(own_checkpoint, False)
    assert open_checkpoint(own_checkpoint).tied is True


def test_the_replay_factor_is_one_over_a_pooled_cell_unless_the_config_has_its_own(own_checkpoint: Path) -> None:
    assert open_checkpoint(own_checkpoint).config.replay_spatial_scale == 1.0  # nano's own
    edit_json(own_checkpoint / "config.json", lambda config: config.pop("replay_spatial_scale"))
    assert open_checkpoint(own_checkpoint).config.replay_spatial_scale == pytest.approx(1 / 28)


def test_transformers_5_rope_parameters_are_understood(own_checkpoint: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        text = config["mllm_config"]["text_config"]
        del text["rope_theta"], text["rope_scaling"]
        text["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}

    edit_json(own_checkpoint / "config.json", edit)
    text = open_checkpoint(own_checkpoint).config.text
    assert (text.rope_theta, text.rope_scaling) == (5e5, None)


# The released sizes: parameters counted in millions, from the published table


@pytest.mark.parametrize(
    ("size", "vision", "projector", "llama", "sequence"),
    [(Size.B1, 291.4, 6.3, 1235.8, 1025), (Size.B8, 1740.9, 23.1, 8030.3, 1024)],
)
def test_the_released_sizes_have_their_published_parameters(
    size: Size, vision: float, projector: float, llama: float, sequence: int
) -> None:
    config = parse_config(size.preset.config())
    shapes = expected_shapes(config, size.preset.tied)

    def millions(prefix: str) -> float:
        return round(sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix)) / 1e6, 1)

    assert millions(VISION) == vision
    assert millions(PROJECTOR) == projector
    assert round(millions(LLAMA) + millions(HEAD), 1) == llama
    assert shapes[VISION + "pos_embed"][1] == sequence


# Tokenizer, template, stop tokens


def test_the_chat_template_file_comes_first(own_checkpoint: Path) -> None:
    (own_checkpoint / "chat_template.jinja").write_text("from the file")
    edit_json(own_checkpoint / "tokenizer_config.json", lambda config: config.update(chat_template="from the config"))
    assert open_checkpoint(own_checkpoint).chat_template == "from the file"


def test_the_chat_template_may_be_in_the_tokenizer_config(own_checkpoint: Path) -> None:
    (own_checkpoint / "chat_template.jinja").unlink()
    edit_json(own_checkpoint / "tokenizer_config.json", lambda config: config.update(chat_template="from the config"))
    assert open_checkpoint(own_checkpoint).chat_template == "from the config"


def test_the_chat_template_may_be_in_a_json_file(own_checkpoint: Path) -> None:
    (own_checkpoint / "chat_template.jinja").unlink()
    write_json(own_checkpoint / "chat_template.json", {"chat_template": "from the json"})
    assert open_checkpoint(own_checkpoint).chat_template == "from the json"


def test_no_chat_template_anywhere_is_said(own_checkpoint: Path) -> None:
    (own_checkpoint / "chat_template.jinja").unlink()
    refused_checkpoint(own_checkpoint, "chat_template.jinja", "tokenizer_config.json")


def test_the_stop_tokens_of_the_generation_config_come_first(own_checkpoint: Path) -> None:
    write_json(own_checkpoint / "generation_config.json", {"eos_token_id": [301, 309]})
    assert open_checkpoint(own_checkpoint).stop_tokens == (301, 309)


def test_a_single_stop_token_will_do(own_checkpoint: Path) -> None:
    write_json(own_checkpoint / "generation_config.json", {"eos_token_id": 301})
    assert open_checkpoint(own_checkpoint).stop_tokens == (301,)


@pytest.mark.parametrize("generation", [None, {"do_sample": False}], ids=["no file", "no field"])
def test_the_text_configs_stop_token_stands_in(own_checkpoint: Path, generation: dict[str, Any] | None) -> None:
    (own_checkpoint / "generation_config.json").unlink()
    if generation is not None:
        write_json(own_checkpoint / "generation_config.json", generation)
    assert open_checkpoint(own_checkpoint).stop_tokens == (309,)  # <|eot_id|>


def test_no_stop_token_anywhere_is_said(own_checkpoint: Path) -> None:
    (own_checkpoint / "generation_config.json").unlink()
    edit_json(own_checkpoint / "config.json", lambda config: config["mllm_config"]["text_config"].pop("eos_token_id"))
    refused_checkpoint(own_checkpoint, "no eos_token_id", "generation_config.json", "config.json")


@pytest.mark.parametrize("stops", ["<|eot_id|>", [301, "x"], [], {"a": 1}])
def test_a_stop_token_that_is_no_id_is_said(own_checkpoint: Path, stops: object) -> None:
    write_json(own_checkpoint / "generation_config.json", {"eos_token_id": stops})
    refused_checkpoint(own_checkpoint, "generation_config.json: eos_token_id")


@pytest.mark.parametrize("token", ["<s>", {"content": "<s>", "special": True}], ids=["text", "object"])
def test_the_first_token_comes_from_the_tokenizer_config(own_checkpoint: Path, token: object) -> None:
    write_json(own_checkpoint / "tokenizer_config.json", {"bos_token": token})
    assert open_checkpoint(own_checkpoint).begin_text == "<s>"


def test_without_a_tokenizer_config_the_first_token_is_llamas(own_checkpoint: Path) -> None:
    (own_checkpoint / "tokenizer_config.json").unlink()
    assert open_checkpoint(own_checkpoint).begin_text == "<|begin_of_text|>"


def test_a_missing_tokenizer_is_named(own_checkpoint: Path) -> None:
    (own_checkpoint / "tokenizer.json").unlink()
    refused_checkpoint(own_checkpoint, "tokenizer.json")
