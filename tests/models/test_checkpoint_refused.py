"""A checkpoint that is wrong or damaged: one line that names the file, and the field or the tensor."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.shapes import SHARDS
from helpers.spoilt import edit_json, edit_tensors, refused_checkpoint, write_json
from safetensors.torch import load_file, save_file

from gar_edge.models.checkpoint import open_checkpoint
from gar_edge.models.weights import LLAMA, MASK_PATCH, TOKEN_TABLE
from gar_edge.runtime.errors import GarCheckpointError

# Configs that are wrong


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused_checkpoint(tmp_path / "none", "no such folder", "config.json")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_missing_config_is_named(own_checkpoint: Path, name: str) -> None:
    (own_checkpoint / name).unlink()
    refused_checkpoint(own_checkpoint, f"no {name}")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "generation_config.json"])
@pytest.mark.parametrize("data", [b"{", b"", b"\xff\xfe{}", b"<html>\n</html>"])
def test_a_config_that_is_not_json_is_named(own_checkpoint: Path, name: str, data: bytes) -> None:
    (own_checkpoint / name).write_bytes(data)
    refused_checkpoint(own_checkpoint, f"/{name}: not readable as JSON")


def test_a_config_that_is_no_object_is_named(own_checkpoint: Path) -> None:
    write_json(own_checkpoint / "config.json", [1])
    refused_checkpoint(own_checkpoint, "/config.json: expected a JSON object, found list")


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
def test_a_missing_field_of_the_config_is_named(own_checkpoint: Path, path: str) -> None:
    *parents, field = path.split(".")

    def edit(config: dict[str, Any]) -> None:
        for parent in parents:
            config = config[parent]
        del config[field]

    edit_json(own_checkpoint / "config.json", edit)
    refused_checkpoint(own_checkpoint, f"/config.json: no field '{field}'")


@pytest.mark.parametrize("field", ["tile_size", "max_num_tiles", "rescale_factor", "image_mean", "image_std"])
def test_a_missing_field_of_the_preprocessor_is_named(own_checkpoint: Path, field: str) -> None:
    edit_json(own_checkpoint / "preprocessor_config.json", lambda config: config.pop(field))
    refused_checkpoint(own_checkpoint, f"/preprocessor_config.json: no field '{field}'")


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
def test_a_field_of_a_wrong_type_or_value_is_one_line(own_checkpoint: Path, path: str, value: object) -> None:
    *parents, field = path.split(".")

    def edit(config: dict[str, Any]) -> None:
        for parent in parents:
            config = config[parent]
        config[field] = value

    edit_json(own_checkpoint / "config.json", edit)
    refused_checkpoint(own_checkpoint, "/config.json: ")


def test_an_unknown_vision_architecture_is_named_beside_the_known_ones(own_checkpoint: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["mllm_config"]["vision_config"]["architecture"] = "vit_huge"

    edit_json(own_checkpoint / "config.json", edit)
    refused_checkpoint(
        own_checkpoint, "config.json", "'vit_huge'", "vit_pe_core_large_patch14_336", "vit_pe_core_gigantic_patch14_448"
    )


def test_an_unknown_rope_scaling_is_named(own_checkpoint: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["mllm_config"]["text_config"]["rope_scaling"] = {"rope_type": "yarn", "factor": 4.0}

    edit_json(own_checkpoint / "config.json", edit)
    refused_checkpoint(own_checkpoint, "config.json", "'yarn'", "not supported")


def test_tiles_of_two_sizes_in_two_configs_are_named(own_checkpoint: Path) -> None:
    edit_json(own_checkpoint / "preprocessor_config.json", lambda config: config.update(tile_size=56))
    refused_checkpoint(own_checkpoint, "preprocessor_config.json has tile_size 56", "config.json has img_size 28")


@pytest.mark.parametrize("change", [{"vision_input_type": "vanilla"}, {"resample": 0}])
def test_preprocessing_that_gar_does_not_use_is_refused(own_checkpoint: Path, change: dict[str, Any]) -> None:
    edit_json(own_checkpoint / "preprocessor_config.json", lambda config: config.update(change))
    refused_checkpoint(own_checkpoint, "preprocessor_config.json", *change, "not supported")


# Tensors that do not fit


def test_a_missing_tensor_is_named(own_checkpoint: Path) -> None:
    edit_tensors(own_checkpoint, lambda tensors: tensors.pop(MASK_PATCH))
    refused_checkpoint(own_checkpoint, f"1 missing ({MASK_PATCH})", "config.json")


def test_a_tensor_left_over_is_named(own_checkpoint: Path) -> None:
    edit_tensors(own_checkpoint, lambda tensors: tensors.update({"vision.extra": torch.zeros(1)}))
    refused_checkpoint(own_checkpoint, "1 left over (vision.extra)")


def test_a_misshaped_tensor_is_named_with_both_shapes(own_checkpoint: Path) -> None:
    edit_tensors(own_checkpoint, lambda tensors: tensors.update({TOKEN_TABLE: torch.zeros(319, 16)}))
    refused_checkpoint(own_checkpoint, f"1 misshaped ({TOKEN_TABLE} is [319, 16], not [318, 16])")


def test_a_flattened_tensor_of_the_right_size_is_misshaped(own_checkpoint: Path) -> None:
    edit_tensors(own_checkpoint, lambda tensors: tensors.update({MASK_PATCH: tensors[MASK_PATCH].flatten()}))
    refused_checkpoint(own_checkpoint, f"{MASK_PATCH} is [9408], not [16, 3, 14, 14]")


def test_all_kinds_of_misfit_are_told_at_once_and_shortened(own_checkpoint: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(LLAMA + "layers.1.")]:
            del tensors[name]
        tensors["extra"] = torch.zeros(1)
        tensors[LLAMA + "norm.weight"] = torch.zeros(3)

    edit_tensors(own_checkpoint, edit)
    text = refused_checkpoint(own_checkpoint, "9 missing", "1 left over", "1 misshaped", "…")
    assert text.count("layers.1.") == 3


def test_a_deeper_config_than_the_tensors_is_told(own_checkpoint: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["mllm_config"]["text_config"]["num_hidden_layers"] = 3

    edit_json(own_checkpoint / "config.json", edit)
    refused_checkpoint(own_checkpoint, "9 missing", "layers.2.")


def test_a_tensor_of_another_dtype_is_named(own_checkpoint: Path) -> None:
    edit_tensors(own_checkpoint, lambda t: t.update({MASK_PATCH: t[MASK_PATCH].to(torch.float8_e4m3fn)}))
    refused_checkpoint(own_checkpoint, "model.safetensors", MASK_PATCH, "F8_E4M3")


# Weight files that are damaged


def test_no_weights_at_all_are_told(own_checkpoint: Path) -> None:
    (own_checkpoint / "model.safetensors").unlink()
    refused_checkpoint(own_checkpoint, "model.safetensors", "model.safetensors.index.json", "weights are missing")


@pytest.mark.parametrize("keep", [-1, -1000])
def test_a_truncated_file_is_named_with_both_lengths(own_checkpoint: Path, keep: int) -> None:
    data = (own_checkpoint / "model.safetensors").read_bytes()
    (own_checkpoint / "model.safetensors").write_bytes(data[:keep])
    refused_checkpoint(
        own_checkpoint, "/model.safetensors: truncated", f"{len(data) + keep} bytes of {len(data)}", "download it again"
    )


def test_a_file_with_bytes_left_over_is_named(own_checkpoint: Path) -> None:
    with (own_checkpoint / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    refused_checkpoint(own_checkpoint, "/model.safetensors: truncated or altered")


@pytest.mark.parametrize("keep", [0, 4, 8, 500])
def test_a_header_cut_off_is_told(own_checkpoint: Path, keep: int) -> None:
    data = (own_checkpoint / "model.safetensors").read_bytes()
    assert int.from_bytes(data[:8], "little") > 500
    (own_checkpoint / "model.safetensors").write_bytes(data[:keep])
    refused_checkpoint(own_checkpoint, "/model.safetensors: not a whole safetensors file", "download it again")


def test_a_pointer_in_place_of_the_weights_is_told(own_checkpoint: Path) -> None:
    # What git leaves where large files were not fetched.
    (own_checkpoint / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    )
    refused_checkpoint(own_checkpoint, "/model.safetensors: not a whole safetensors file", "download it again")


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
def test_a_header_that_is_none_is_told(own_checkpoint: Path, header: object) -> None:
    text = json.dumps(header).encode()
    (own_checkpoint / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    refused_checkpoint(own_checkpoint, "/model.safetensors: not a whole safetensors file")


def test_a_tensor_of_other_bytes_than_its_shape_needs_is_named(own_checkpoint: Path) -> None:
    text = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (own_checkpoint / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    refused_checkpoint(own_checkpoint, "/model.safetensors: tensor a has 8 bytes, not those of F32 [3]")


def test_a_truncated_shard_is_named(sharded_checkpoint: Path) -> None:
    data = (sharded_checkpoint / SHARDS[1]).read_bytes()
    (sharded_checkpoint / SHARDS[1]).write_bytes(data[:-1])
    refused_checkpoint(sharded_checkpoint, f"/{SHARDS[1]}: truncated")


def test_a_shard_that_the_index_names_but_nobody_has_is_named(sharded_checkpoint: Path) -> None:
    (sharded_checkpoint / SHARDS[0]).unlink()
    refused_checkpoint(sharded_checkpoint, SHARDS[0], "named in model.safetensors.index.json", "download them again")


def test_a_tensor_in_two_shards_is_named(sharded_checkpoint: Path) -> None:
    first, second = (load_file(sharded_checkpoint / shard) for shard in SHARDS)
    name = sorted(first)[0]
    save_file(second | {name: first[name]}, sharded_checkpoint / SHARDS[1])
    refused_checkpoint(sharded_checkpoint, f"/{SHARDS[1]}: tensor {name} is also in {SHARDS[0]}")


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": [1]}, {"weight_map": {"a": ["b"]}}])
def test_an_index_without_a_weight_map_is_named(sharded_checkpoint: Path, index: dict[str, Any]) -> None:
    write_json(sharded_checkpoint / "model.safetensors.index.json", index)
    refused_checkpoint(sharded_checkpoint, "/model.safetensors.index.json: no weight_map")


def test_a_file_that_shrinks_after_opening_is_told_when_read(own_checkpoint: Path) -> None:
    weights = open_checkpoint(own_checkpoint).weights
    (own_checkpoint / "model.safetensors").write_bytes(b"gone")
    with pytest.raises(GarCheckpointError, match=re.escape(f"model.safetensors: cannot read {MASK_PATCH}")) as error:
        weights.tensor(MASK_PATCH)
    assert "\n" not in str(error.value)
