"""Reading a released checkpoint's folder: what is taken from where, and one line for everything that is wrong."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gar_edge.models.checkpoint import Checkpoint, open_checkpoint
from gar_edge.models.config import parse_config
from gar_edge.models.sizes import Size
from gar_edge.models.standin import write_checkpoint
from gar_edge.models.weights import HEAD, LLAMA, MASK_PATCH, PROJECTOR, TOKEN_TABLE, VISION, expected_shapes
from gar_edge.runtime.errors import GarCheckpointError

# Four patches to a tile, 300 words: 300 bytes and unused places, 12 + 6 special tokens.
PRESET = replace(
    Size.NANO.preset, tile=28, vision_dim=16, vision_depth=1, vision_heads=2, hidden=16, ffn=24, layers=2, heads=4,
    kv_heads=2, head_dim=4, first_special_token=300, context=512, max_tiles=4,
)  # fmt: skip
VOCAB = 318
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "GAR-tiny"
    write_checkpoint(folder, PRESET)
    return folder


@pytest.fixture
def folder(released: Path, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be spoilt."""
    return Path(shutil.copytree(released, tmp_path / "GAR-tiny"))


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The same in two shards and an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    for shard, half in zip(SHARDS, halves, strict=True):
        save_file({name: tensors[name] for name in half}, folder / shard)
    index = {name: shard for shard, half in zip(SHARDS, halves, strict=True) for name in half}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    return folder


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    write_json(path, value)


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def refused(folder: Path, *parts: str) -> str:
    """The one line with which the checkpoint is refused, after checking that it holds these parts."""
    with pytest.raises(GarCheckpointError) as error:
        open_checkpoint(folder)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(str(folder))
    for part in parts:
        assert part in text
    return text


# A good one


@pytest.fixture(scope="module")
def opened(released: Path) -> Checkpoint:
    return open_checkpoint(released)


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


def test_the_folder_names_the_checkpoint(opened: Checkpoint, released: Path) -> None:
    assert (opened.name, opened.origin, opened.revision) == ("GAR-tiny", str(released), None)


def test_a_hub_name_replaces_the_folders(released: Path) -> None:
    found = open_checkpoint(released, "HaochenWang/GAR-1B", "abc")
    assert (found.name, found.origin, found.revision) == ("HaochenWang/GAR-1B", "HaochenWang/GAR-1B", "abc")


def test_every_tensor_is_read_as_it_was_written(opened: Checkpoint, released: Path) -> None:
    written = load_file(released / "model.safetensors")
    assert set(opened.weights.names()) == set(written)
    for name, tensor in written.items():
        assert opened.weights.shape(name) == tuple(tensor.shape)
        assert torch.equal(opened.weights.tensor(name), tensor)


def test_opening_reads_no_weights(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("opened for reading")

    monkeypatch.setattr("gar_edge.models.checkpoint.safe_open", unexpected)
    open_checkpoint(released)


def test_shards_are_read_through_their_index(sharded: Path, released: Path) -> None:
    found = open_checkpoint(sharded).weights
    written = load_file(released / "model.safetensors")
    assert set(found.names()) == set(written)
    assert all(torch.equal(found.tensor(name), tensor) for name, tensor in written.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_tensors_keep_their_dtype(folder: Path, dtype: torch.dtype) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({k: v.to(dtype) for k, v in tensors.items()}))
    written = load_file(folder / "model.safetensors")
    found = open_checkpoint(folder).weights.tensor(MASK_PATCH)
    assert found.dtype == dtype
    assert torch.equal(found, written[MASK_PATCH])


def set_tied(folder: Path, tied: bool) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["mllm_config"]["tie_word_embeddings"] = tied
        config["mllm_config"]["text_config"]["tie_word_embeddings"] = tied

    edit_json(folder / "config.json", edit)


def test_a_head_unties_a_config_that_says_tied(folder: Path) -> None:
    set_tied(folder, True)
    edit_tensors(folder, lambda tensors: tensors.update({HEAD: torch.zeros(VOCAB, 16)}))
    assert open_checkpoint(folder).tied is False


def test_no_head_ties_a_config_that_says_untied(folder: Path) -> None:
    set_tied(folder, False)
    assert open_checkpoint(folder).tied is True


def test_the_replay_factor_is_one_over_a_pooled_cell_unless_the_config_has_its_own(folder: Path) -> None:
    assert open_checkpoint(folder).config.replay_spatial_scale == 1.0  # nano's own
    edit_json(folder / "config.json", lambda config: config.pop("replay_spatial_scale"))
    assert open_checkpoint(folder).config.replay_spatial_scale == pytest.approx(1 / 28)


def test_transformers_5_rope_parameters_are_understood(folder: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        text = config["mllm_config"]["text_config"]
        del text["rope_theta"], text["rope_scaling"]
        text["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}

    edit_json(folder / "config.json", edit)
    text = open_checkpoint(folder).config.text
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


def test_the_chat_template_file_comes_first(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("from the file")
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(chat_template="from the config"))
    assert open_checkpoint(folder).chat_template == "from the file"


def test_the_chat_template_may_be_in_the_tokenizer_config(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(chat_template="from the config"))
    assert open_checkpoint(folder).chat_template == "from the config"


def test_the_chat_template_may_be_in_a_json_file(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    write_json(folder / "chat_template.json", {"chat_template": "from the json"})
    assert open_checkpoint(folder).chat_template == "from the json"


def test_no_chat_template_anywhere_is_said(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    refused(folder, "chat_template.jinja", "tokenizer_config.json")


def test_the_stop_tokens_of_the_generation_config_come_first(folder: Path) -> None:
    write_json(folder / "generation_config.json", {"eos_token_id": [301, 309]})
    assert open_checkpoint(folder).stop_tokens == (301, 309)


def test_a_single_stop_token_will_do(folder: Path) -> None:
    write_json(folder / "generation_config.json", {"eos_token_id": 301})
    assert open_checkpoint(folder).stop_tokens == (301,)


@pytest.mark.parametrize("generation", [None, {"do_sample": False}], ids=["no file", "no field"])
def test_the_text_configs_stop_token_stands_in(folder: Path, generation: dict[str, Any] | None) -> None:
    (folder / "generation_config.json").unlink()
    if generation is not None:
        write_json(folder / "generation_config.json", generation)
    assert open_checkpoint(folder).stop_tokens == (309,)  # <|eot_id|>


def test_no_stop_token_anywhere_is_said(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    edit_json(folder / "config.json", lambda config: config["mllm_config"]["text_config"].pop("eos_token_id"))
    refused(folder, "no eos_token_id", "generation_config.json", "config.json")


@pytest.mark.parametrize("stops", ["<|eot_id|>", [301, "x"], [], {"a": 1}])
def test_a_stop_token_that_is_no_id_is_said(folder: Path, stops: object) -> None:
    write_json(folder / "generation_config.json", {"eos_token_id": stops})
    refused(folder, "generation_config.json: eos_token_id")


@pytest.mark.parametrize("token", ["<s>", {"content": "<s>", "special": True}], ids=["text", "object"])
def test_the_first_token_comes_from_the_tokenizer_config(folder: Path, token: object) -> None:
    write_json(folder / "tokenizer_config.json", {"bos_token": token})
    assert open_checkpoint(folder).begin_text == "<s>"


def test_without_a_tokenizer_config_the_first_token_is_llamas(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    assert open_checkpoint(folder).begin_text == "<|begin_of_text|>"


def test_a_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    refused(folder, "tokenizer.json")


# Configs that are wrong


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no such folder", "config.json")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_missing_config_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"no {name}")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "generation_config.json"])
@pytest.mark.parametrize("data", [b"{", b"", b"\xff\xfe{}", b"<html>\n</html>"])
def test_a_config_that_is_not_json_is_named(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    refused(folder, f"/{name}: not readable as JSON")


def test_a_config_that_is_no_object_is_named(folder: Path) -> None:
    write_json(folder / "config.json", [1])
    refused(folder, "/config.json: expected a JSON object, found list")


@pytest.mark.parametrize(
    "path",
    [
        "mllm_config",
        "crop_tokens_ids",
        "prompt_numbers",
        "mllm_config.image_token_id",
        "mllm_config.vision_config",
        "mllm_config.vision_config.architecture",
        "mllm_config.vision_config.model_args.embed_dim",
        "mllm_config.text_config",
        "mllm_config.text_config.hidden_size",
        "mllm_config.text_config.rope_theta",
    ],
)
def test_a_missing_field_of_the_config_is_named(folder: Path, path: str) -> None:
    *parents, field = path.split(".")

    def edit(config: dict[str, Any]) -> None:
        for parent in parents:
            config = config[parent]
        del config[field]

    edit_json(folder / "config.json", edit)
    refused(folder, f"/config.json: no field '{field}'")


@pytest.mark.parametrize("field", ["tile_size", "max_num_tiles", "rescale_factor", "image_mean", "image_std"])
def test_a_missing_field_of_the_preprocessor_is_named(folder: Path, field: str) -> None:
    edit_json(folder / "preprocessor_config.json", lambda config: config.pop(field))
    refused(folder, f"/preprocessor_config.json: no field '{field}'")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mllm_config", []),
        ("mllm_config.vision_config", "x"),
        ("mllm_config.vision_config.model_args", 3),
        ("mllm_config.vision_config.model_args.patch_size", 0),
        ("mllm_config.vision_config.model_args.img_size", 28),
        ("mllm_config.text_config.hidden_size", "wide"),
        ("mllm_config.text_config.hidden_size", None),
        ("mllm_config.text_config.rope_scaling", "yarn"),
        ("mllm_config.projector_pooling_ratio", 0),
        ("crop_tokens_ids", 5),
    ],
)
def test_a_field_of_a_wrong_type_or_value_is_one_line(folder: Path, path: str, value: object) -> None:
    *parents, field = path.split(".")

    def edit(config: dict[str, Any]) -> None:
        for parent in parents:
            config = config[parent]
        config[field] = value

    edit_json(folder / "config.json", edit)
    refused(folder, "/config.json: ")


def test_an_unknown_vision_architecture_is_named_beside_the_known_ones(folder: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["mllm_config"]["vision_config"]["architecture"] = "vit_huge"

    edit_json(folder / "config.json", edit)
    refused(folder, "config.json", "'vit_huge'", "vit_pe_core_large_patch14_336", "vit_pe_core_gigantic_patch14_448")


def test_an_unknown_rope_scaling_is_named(folder: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["mllm_config"]["text_config"]["rope_scaling"] = {"rope_type": "yarn", "factor": 4.0}

    edit_json(folder / "config.json", edit)
    refused(folder, "config.json", "'yarn'", "not supported")


def test_tiles_of_two_sizes_in_two_configs_are_named(folder: Path) -> None:
    edit_json(folder / "preprocessor_config.json", lambda config: config.update(tile_size=56))
    refused(folder, "preprocessor_config.json has tile_size 56", "config.json has img_size 28")


@pytest.mark.parametrize("change", [{"vision_input_type": "vanilla"}, {"resample": 0}])
def test_preprocessing_that_gar_does_not_use_is_refused(folder: Path, change: dict[str, Any]) -> None:
    edit_json(folder / "preprocessor_config.json", lambda config: config.update(change))
    refused(folder, "preprocessor_config.json", *change, "not supported")


# Tensors that do not fit


def test_a_missing_tensor_is_named(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop(MASK_PATCH))
    refused(folder, f"1 missing ({MASK_PATCH})", "config.json")


def test_a_tensor_left_over_is_named(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"vision.extra": torch.zeros(1)}))
    refused(folder, "1 left over (vision.extra)")


def test_a_misshaped_tensor_is_named_with_both_shapes(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({TOKEN_TABLE: torch.zeros(VOCAB + 1, 16)}))
    refused(folder, f"1 misshaped ({TOKEN_TABLE} is [319, 16], not [318, 16])")


def test_a_flattened_tensor_of_the_right_size_is_misshaped(folder: Path) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({MASK_PATCH: tensors[MASK_PATCH].flatten()}))
    refused(folder, f"{MASK_PATCH} is [9408], not [16, 3, 14, 14]")


def test_all_kinds_of_misfit_are_told_at_once_and_shortened(folder: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(LLAMA + "layers.1.")]:
            del tensors[name]
        tensors["extra"] = torch.zeros(1)
        tensors[LLAMA + "norm.weight"] = torch.zeros(3)

    edit_tensors(folder, edit)
    text = refused(folder, "9 missing", "1 left over", "1 misshaped", "…")
    assert text.count("layers.1.") == 3


def test_a_deeper_config_than_the_tensors_is_told(folder: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["mllm_config"]["text_config"]["num_hidden_layers"] = 3

    edit_json(folder / "config.json", edit)
    refused(folder, "9 missing", "layers.2.")


def test_a_tensor_of_another_dtype_is_named(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({MASK_PATCH: t[MASK_PATCH].to(torch.float8_e4m3fn)}))
    refused(folder, "model.safetensors", MASK_PATCH, "F8_E4M3")


# Weight files that are damaged


def test_no_weights_at_all_are_told(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors", "model.safetensors.index.json", "weights are missing")


@pytest.mark.parametrize("keep", [-1, -1000])
def test_a_truncated_file_is_named_with_both_lengths(folder: Path, keep: int) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:keep])
    refused(folder, "/model.safetensors: truncated", f"{len(data) + keep} bytes of {len(data)}", "download it again")


def test_a_file_with_bytes_left_over_is_named(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    refused(folder, "/model.safetensors: truncated or altered")


@pytest.mark.parametrize("keep", [0, 4, 8, 500])
def test_a_header_cut_off_is_told(folder: Path, keep: int) -> None:
    data = (folder / "model.safetensors").read_bytes()
    assert int.from_bytes(data[:8], "little") > 500
    (folder / "model.safetensors").write_bytes(data[:keep])
    refused(folder, "/model.safetensors: not a whole safetensors file", "download it again")


def test_a_pointer_in_place_of_the_weights_is_told(folder: Path) -> None:
    # What git leaves where large files were not fetched.
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    refused(folder, "/model.safetensors: not a whole safetensors file", "download it again")


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"a": 1},
        {"a": {}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
        {"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": None, "data_offsets": [0, 4]}},
    ],
)
def test_a_header_that_is_none_is_told(folder: Path, header: object) -> None:
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    refused(folder, "/model.safetensors: not a whole safetensors file")


def test_a_tensor_of_other_bytes_than_its_shape_needs_is_named(folder: Path) -> None:
    text = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    refused(folder, "/model.safetensors: tensor a has 8 bytes, not those of F32 [3]")


def test_a_truncated_shard_is_named(sharded: Path) -> None:
    data = (sharded / SHARDS[1]).read_bytes()
    (sharded / SHARDS[1]).write_bytes(data[:-1])
    refused(sharded, f"/{SHARDS[1]}: truncated")


def test_a_shard_that_the_index_names_but_nobody_has_is_named(sharded: Path) -> None:
    (sharded / SHARDS[0]).unlink()
    refused(sharded, SHARDS[0], "named in model.safetensors.index.json", "download them again")


def test_a_tensor_in_two_shards_is_named(sharded: Path) -> None:
    first, second = (load_file(sharded / shard) for shard in SHARDS)
    name = sorted(first)[0]
    save_file(second | {name: first[name]}, sharded / SHARDS[1])
    refused(sharded, f"/{SHARDS[1]}: tensor {name} is also in {SHARDS[0]}")


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": [1]}, {"weight_map": {"a": ["b"]}}])
def test_an_index_without_a_weight_map_is_named(sharded: Path, index: dict[str, Any]) -> None:
    write_json(sharded / "model.safetensors.index.json", index)
    refused(sharded, "/model.safetensors.index.json: no weight_map")


def test_a_file_that_shrinks_after_opening_is_told_when_read(folder: Path) -> None:
    weights = open_checkpoint(folder).weights
    (folder / "model.safetensors").write_bytes(b"gone")
    with pytest.raises(GarCheckpointError, match=re.escape(f"model.safetensors: cannot read {MASK_PATCH}")) as error:
        weights.tensor(MASK_PATCH)
    assert "\n" not in str(error.value)
