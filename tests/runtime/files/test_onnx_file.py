"""Editing ONNX files without the onnx package, judged by the onnx package."""

import random
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from gar_edge.runtime.files.onnx_file import fix_dimensions, strip_functions

SIZES = {"batch": 1, "capacity": 704}


def symbols(model: onnx.ModelProto) -> set[str]:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    return {dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim} - {""}


def fixed_by_onnx(model: onnx.ModelProto, sizes: dict[str, int]) -> onnx.ModelProto:
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    return model


@pytest.fixture(scope="module")
def decoder(tiny_bundle: Path) -> bytes:
    return (tiny_bundle / "decoder.onnx").read_bytes()


def test_fixed_dimensions_are_what_onnx_would_write(decoder: bytes) -> None:
    fixed = onnx.load_model_from_string(fix_dimensions(decoder, SIZES))
    assert fixed == fixed_by_onnx(onnx.load_model_from_string(decoder), SIZES)
    assert symbols(fixed) == {"length", "selected", "batch*selected", "2*length", "2*selected"}  # two heads share a key


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 16384, 2**31, 2**62])
def test_sizes_of_every_varint_length(decoder: bytes, size: int) -> None:
    fixed = onnx.load_model_from_string(fix_dimensions(decoder, {"capacity": size}))
    shapes = {value.name: value.type.tensor_type.shape.dim for value in fixed.graph.input}
    assert shapes["key_cache_0"][2].dim_value == size
    assert shapes["key_cache_0"][0].dim_param == "batch"


def test_nothing_to_fix_is_the_same_bytes(decoder: bytes) -> None:
    assert fix_dimensions(decoder, {}) == decoder


def test_what_stands_beside_a_dimension_stays() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3], doc_string="n is the count")
    value.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "n", [value], [helper.make_empty_tensor_value_info("y")]
    )
    model = helper.make_model(graph, doc_string="n", producer_name="n")
    fixed = onnx.load_model_from_string(fix_dimensions(model.SerializeToString(), {"n": 5}))
    assert fixed == fixed_by_onnx(model, {"n": 5})
    assert fixed.graph.input[0].type.tensor_type.shape.dim[0].denotation == "DATA_BATCH"


def test_a_dimension_that_is_not_there_is_an_error(decoder: bytes) -> None:
    with pytest.raises(ValueError, match="no dimension named capacities, tiles"):
        fix_dimensions(decoder, {"tiles": 4, "capacities": 5, "capacity": 6})


def test_functions_are_stripped_and_nothing_else(tiny_bundle: Path) -> None:
    before = onnx.load(str(tiny_bundle / "roi_replay.onnx"))
    after = onnx.load_model_from_string(strip_functions((tiny_bundle / "roi_replay.onnx").read_bytes()))
    assert len(before.functions) == 1
    del before.functions[:]
    assert after == before


def test_a_file_cut_off_anywhere_is_refused_or_lacks_the_dimension(decoder: bytes) -> None:
    for end in random.Random(0).sample(range(1, len(decoder)), 200):
        with pytest.raises(ValueError, match=r"no protobuf message|no dimension|unknown"):
            fix_dimensions(decoder[:end], SIZES)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\xff" * 40, b"\x00\x00", b"\x3a", b"\x3a\x05ab", b"\x3b\x00", b"\x38\x01", b"\x3d\x00", b"not a model"],
)
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError, match=r"no protobuf message|no dimension|unknown|not a message"):
        fix_dimensions(garbage, SIZES)


def test_random_bytes_never_raise_anything_else() -> None:
    source = random.Random(1)
    for _ in range(2000):
        try:
            fix_dimensions(source.randbytes(source.randrange(60)), SIZES)
        except ValueError:
            continue
        raise AssertionError("random bytes have no dimension named capacity")
