"""Every graph of a bundle against the operators of TensorRT's ONNX parsers, JetPack 6's first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from helpers.needs import from_dev
from helpers.shapes import SHAPES
from helpers.tensorrt_operators import CONSTANT_INPUTS, NEWEST_OPSET, OPERATORS

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.export.quantise import Quantising
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.runtime.bundle.shipped import SHIPPED

FOR_ALL = ("encoder.onnx", "roi_replay.onnx", "decoder_compat.onnx")
OLD = ("10.1", "10.3", "10.13")  # JetPack 6.1 and 6.2, 7.0 and 7.1, and the oldest that the plugin is written for


@pytest.fixture(scope="module", params=[Precision.FP16, Precision.INT8, Precision.FP8])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ExportOptions(request.param, validate=False, quantising=Quantising(samples=2), compat=True)
    checkpoint = random_checkpoint_of(SHAPES["tied"], "tiny")
    return export_bundle(checkpoint, tmp_path_factory.mktemp("parsers") / "b", options, Silent()).folder


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The standard operators, those of local functions among them."""
    yield from (node for node in model.graph.node if node.domain == "")
    for function in model.functions:
        yield from function.node


def opset(model: onnx.ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain == "")


def has_float8(model: onnx.ModelProto) -> bool:
    return any(tensor.data_type == onnx.TensorProto.FLOAT8E4M3FN for tensor in model.graph.initializer)


def assert_read_by_all(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    used = {node.op_type for node in nodes(model)}
    for version, known in OPERATORS.items():
        assert used <= known, (version, used - known)
        # ONNX Runtime needs 21 of 8-bit floats, which no JetPack 6 has; the parsers of 10 log the number and go on.
        assert opset(model) <= max(NEWEST_OPSET[version], 21 if has_float8(model) else 0)
    constant = {tensor.name for tensor in model.graph.initializer}
    constant |= {name for node in nodes(model) if node.op_type == "Constant" for name in node.output}
    for node in nodes(model):
        place = CONSTANT_INPUTS.get(node.op_type)
        if place is not None and len(node.input) > place:
            assert node.input[place] in constant, (node.op_type, node.name)


@pytest.mark.parametrize("name", FOR_ALL)
def test_every_parser_reads_it(folder: Path, name: str) -> None:
    assert_read_by_all(folder / name)


@pytest.mark.parametrize("name", FOR_ALL)
def test_every_parser_reads_the_shipped_gar_nano(name: str) -> None:
    assert_read_by_all(SHIPPED / name)


def test_only_newer_parsers_read_the_standard_decoder(folder: Path) -> None:
    """Which the runtime therefore does not give to the others; without it the table would prove nothing."""
    model = onnx.load(folder / "decoder.onnx", load_external_data=False)
    used = {node.op_type for node in nodes(model)}
    new = {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter"}
    assert all(used - OPERATORS[version] == new for version in OLD)
    assert all(used <= OPERATORS[version] for version in ("10.15", "11.1"))


@pytest.mark.parametrize("name", FOR_ALL)
def test_headers_are_as_old_as_the_operators_allow(folder: Path, name: str) -> None:
    """Opset 20 brought Gelu, file format 9 was its contemporary; ONNX's checker holds each operator to its opset."""
    model = onnx.load(folder / name, load_external_data=False)
    assert (opset(model), model.ir_version) == ((21, 10) if has_float8(model) else (20, 9))
    assert all(entry.version == 20 for function in model.functions for entry in function.opset_import)
    onnx.checker.check_model(folder / name, full_check=True)


def test_an_encoder_of_opset_19_would_lack_its_gelu(folder: Path) -> None:
    used = {node.op_type for node in nodes(onnx.load(folder / "encoder.onnx", load_external_data=False))}
    since = {name: onnx.defs.get_schema(name, 20).since_version for name in used}
    assert max(since.values()) == since["Gelu"] == 20


def test_the_table_is_that_of_a_parser_at_hand() -> None:
    """TensorRT-RTX's, which is of TensorRT 11's time, asked for each name; DeformConv is a plugin, and it has none."""
    trt = pytest.importorskip("tensorrt_rtx", reason=from_dev("tensorrt-rtx"))
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert {name for name in OPERATORS["11.1"] if not parser.supports_operator(name)} == {"DeformConv"}
    assert not parser.supports_operator("BitwiseAnd")
