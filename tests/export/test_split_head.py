"""The head as several products: the same bytes of the same files, the same logits and the same choice among equals."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from helpers.needs import from_dev
from helpers.shapes import SHAPES

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.export.quantise import Quantising
from gar_edge.export.split_head import PRODUCT_BYTES, split_head
from gar_edge.models.sizes import Size
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.models.weights import TOKEN_TABLE
from gar_edge.runtime import Gar, Options

# Float32 is exported whole and split below; the head of an int4 bundle is int8.
CASES = [("tied", Precision.FP16), ("tied", Precision.INT8), ("untied", Precision.FP8)]
ROWS = 90  # of a product at most: a divisor of neither vocabulary
BITS = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.FLOAT16: np.float16, onnx.TensorProto.BOOL: np.bool_}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1].value}")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the head in one piece, in every form that there is of its precision."""
    shape, precision = request.param
    options = ExportOptions(
        precision, validate=False, quantising=Quantising(scenes=True, samples=1), compat=precision is Precision.FP16
    )
    checkpoint = random_checkpoint_of(SHAPES[shape], shape)
    return export_bundle(checkpoint, tmp_path_factory.mktemp("head") / "b", options, Silent()).folder


def split(source: Path, rows: int = ROWS) -> Path:
    """A graph with a split head, beside the one that it is made of."""
    model = ir.load(source)
    head = next(value for name, value in model.graph.initializers.items() if name in ("head", "head_q"))
    assert head.const_value is not None
    row = head.const_value.nbytes // head.const_value.shape.numpy()[0]
    split_head(model.graph, rows * row)
    path = source.with_name(f"split_{source.name}")
    onnx.save(ir.to_proto(model), str(path))
    return path


def decoders(folder: Path) -> list[Path]:
    return sorted(folder.glob("decoder*.onnx"))


def head_parts(path: Path) -> dict[str, list[np.ndarray]]:
    """The head's parameters by name, in the order of their parts; whole ones in a list of one."""
    model = onnx.load(path)
    found: dict[str, list[np.ndarray]] = {}
    for tensor in model.graph.initializer:
        name, _, part = tensor.name.partition(".")
        if name in ("head", "head_q", "head_scale", "head_zero_point"):
            parts = found.setdefault(name, [])
            assert not part or int(part) == len(parts)
            parts.append(onnx.numpy_helper.to_array(tensor))
    return found


def test_the_parts_are_the_whole_heads_bytes(folder: Path) -> None:
    for whole in decoders(folder):
        path = split(whole)
        onnx.checker.check_model(str(path), full_check=True)
        before, after = head_parts(whole), head_parts(path)
        assert before.keys() == after.keys()
        for name, parts in after.items():
            assert len(parts) == -(-len(before[name][0]) // ROWS) > 2
            assert max(len(part) for part in parts) <= ROWS
            assert np.concatenate(parts).tobytes() == before[name][0].tobytes()


def fed(path: Path, length: int = 5) -> Mapping[str, Any]:
    """Random inputs of a decoder: two sequences, some positions of each."""
    model = onnx.load(path, load_external_data=False)
    random, sizes = np.random.default_rng(4), {"batch": 2, "length": length, "selected": 2, "capacity": 8, "past": 3}
    feed: dict[str, Any] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [dim.dim_value or sizes.get(dim.dim_param, 3 + length) for dim in kind.shape.dim]
        if value.name == "select":
            feed[value.name] = np.array([1, length - 1])
        elif kind.elem_type in BITS:
            feed[value.name] = random.standard_normal(shape).astype(BITS[kind.elem_type])
        else:
            feed[value.name] = np.array([1, 3])
    feed["attention_mask"] = np.ones(feed["attention_mask"].shape, np.bool_)
    return feed


def test_logits_and_tokens_are_the_same_bit_for_bit(folder: Path) -> None:
    for whole in decoders(folder):
        path, feed = split(whole), fed(whole)
        outputs = []
        for file in (whole, path):
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            outputs.append(session.run(None, feed))
        assert outputs[0][0].shape[0] == 4
        assert np.isfinite(outputs[0][0]).all()
        for before, after in zip(*outputs, strict=True):
            np.testing.assert_array_equal(after, before)
        np.testing.assert_array_equal(outputs[1][1], outputs[1][0].argmax(-1))


def test_among_equals_the_first_token_is_taken(tmp_path: Path) -> None:
    """Every token's row is there again, in another product."""
    checkpoint = random_checkpoint_of(SHAPES["tied"], "tied")
    read = checkpoint.weights.tensor

    def twice(name: str) -> Any:
        rows = read(name)
        if name == TOKEN_TABLE:
            half = len(rows) // 2
            rows[half : 2 * half] = rows[:half].clone()
            rows[2 * half :] = 0
        return rows

    checkpoint.weights.tensor = twice  # type: ignore[method-assign]
    whole = export_bundle(checkpoint, tmp_path / "b", ExportOptions(validate=False), Silent()).folder / "decoder.onnx"
    session = onnxruntime.InferenceSession(split(whole), providers=["CPUExecutionProvider"])
    logits, tokens = session.run(["logits", "tokens"], fed(whole))
    half = logits.shape[1] // 2
    np.testing.assert_array_equal(logits[:, :half], logits[:, half : 2 * half])
    assert (tokens < half).all()
    np.testing.assert_array_equal(tokens, logits.argmax(-1))


@pytest.mark.parametrize(("most", "parts"), [(1 << 20, 1), (40_000, 3), (1, 318)])
def test_products_are_as_large_as_allowed(tiny_bundle: Path, most: int, parts: int) -> None:
    """A head that fits stays whole; a row is never cut, whatever is allowed."""
    model = ir.load(tiny_bundle / "decoder.onnx")
    split_head(model.graph, most)
    head = [value for name, value in model.graph.initializers.items() if name.split(".")[0] == "head"]
    assert len(head) == parts
    sizes = [value.const_value.nbytes for value in head if value.const_value is not None]
    assert max(sizes) <= max(most, 64 * 4)
    assert sum(sizes) == 318 * 64 * 4


@pytest.mark.parametrize(("size", "width", "products"), [("1b", 1, 4), ("1b", 2, 8), ("1b", 4, 16), ("8b", 1, 8)])
def test_heads_of_true_size(size: str, width: int, products: int) -> None:
    """128262 rows: none of the products above 64 MiB, all but the last of one size, each beginning at a page."""
    from gar_edge.models.config import parse_config

    text = parse_config(Size(size).preset.config()).text
    kinds = {1: ir.DataType.INT8, 2: ir.DataType.FLOAT16, 4: ir.DataType.FLOAT}
    x, head = ir.val("x", kinds[width], [1, text.hidden]), ir.Value(name="head")
    head.const_value = ir.ExternalTensor(
        "table", 0, text.vocab * text.hidden * width, kinds[width], shape=ir.Shape([text.vocab, text.hidden]),
        name="head",
    )  # fmt: skip
    head.shape, head.dtype = head.const_value.shape, kinds[width]
    gemm = ir.Node("", "Gemm", [x, head], [ir.AttrInt64("transB", 1)], name="head_gemm")
    gemm.outputs[0].name, gemm.outputs[0].shape = "logits", ir.Shape([1, text.vocab])
    graph = ir.Graph([x], gemm.outputs, nodes=[gemm], initializers=[head], opset_imports={"": 20})
    split_head(graph, PRODUCT_BYTES)
    parts = [value.const_value for value in graph.initializers.values()]
    tensors = [part for part in parts if isinstance(part, ir.ExternalTensor)]
    assert len(tensors) == products
    assert sum(part.shape.numpy()[0] for part in tensors) == text.vocab
    assert max(part.nbytes for part in tensors) <= 64 << 20
    assert len({part.nbytes for part in tensors[:-1]}) == 1
    assert all((part.offset or 0) % 4096 == 0 for part in tensors)


def test_an_export_with_a_split_head_is_validated_and_answers_alike(
    tmp_path: Path, tiny_bundle: Path, picture: np.ndarray
) -> None:
    options = ExportOptions(head_bytes=ROWS * 64 * 4)
    exported = export_bundle(random_checkpoint_of(SHAPES["tied"], "tiny"), tmp_path / "b", options, Silent())
    assert exported.report is not None
    assert exported.report.ok
    assert len(head_parts(exported.folder / "decoder.onnx")["head"]) == 4
    files = ("decoder.onnx.data", "token_table.bin", "encoder.onnx")
    for name in files:
        assert (exported.folder / name).read_bytes() == (tiny_bundle / name).read_bytes()
    mask = np.zeros(picture.shape[:2], bool)
    mask[20:60, 30:80] = True
    found, wanted = (
        Gar.load(one, threads=1).open(picture).describe(mask, options=Options(max_new_tokens=8)).tokens
        for one in (exported.folder, tiny_bundle)
    )
    assert found == wanted


def test_tensorrt_builds_it(half_nano: Path, tmp_path: Path) -> None:
    """The standard decoder, in the compiler that needs no GPU."""
    pytest.importorskip("tensorrt_rtx", reason=from_dev("tensorrt-rtx"))
    from gar_edge.runtime.bundle.bundle import Bundle
    from gar_edge.runtime.engines.tensorrt.builder import Target, build_engine
    from gar_edge.runtime.engines.tensorrt.installed import RTX, load_library
    from gar_edge.runtime.engines.tensorrt.plan import Limits, plan_of

    bundle = Bundle.open(shutil.copytree(half_nano, tmp_path / "nano"))
    path, plan = split(bundle.folder / "decoder.onnx"), plan_of("decoder", bundle.manifest, Limits(4, 704, 1), False)
    decoder = bundle.manifest.graphs["decoder"]
    assert build_engine(load_library(RTX), "decoder", path, decoder, plan, False, Target("8.6"), lambda step: None)
