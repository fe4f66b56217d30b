"""A TensorRT compiler without a GPU: do the graphs parse and build?"""

from pathlib import Path
from typing import Any

import onnx
import pytest
from conftest import SHAPES

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.export.quantise import Quantising
from gar_edge.models.standin import random_checkpoint_of

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

CAPACITY = 256
# Smallest, usual and largest value of each dimension that varies.
RANGES = {"tiles": (2, 5, 7), "regions": (1, 2, 5), "batch": (1, 1, 1), "length": (1, 64, 128)}
GRIDS = ([1, 1], [2, 2], [3, 2])


@pytest.fixture(scope="module", params=list(Precision))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rtx") / request.param.value
    options = ExportOptions(request.param, validate=False, quantising=Quantising(samples=2))
    return export_bundle(random_checkpoint_of(SHAPES["tied"], "tiny"), folder, options, Silent()).folder


def build(path: Path) -> int:
    """Parse and build for sm_86; the engine's size in bytes. The compiler's own words where it refuses."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    names = {value.name: value for value in onnx.load(str(path), load_external_data=False).graph.input}
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            profile.set_shape_input(tensor.name, *GRIDS)
        elif -1 in tuple(tensor.shape):
            profile.set_shape(tensor.name, *_shapes(names[tensor.name]))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    return int(engine.nbytes)


def _shapes(value: Any) -> list[list[int]]:
    dims = value.type.tensor_type.shape.dim
    return [[RANGES[dim.dim_param][i] if dim.dim_param else dim.dim_value for dim in dims] for i in range(3)]


@pytest.mark.parametrize("name", ["encoder", "roi_replay"])
def test_builds(exported: Path, name: str) -> None:
    assert build(exported / f"{name}.onnx") > 0


def test_decoder_builds_once_its_capacity_is_a_number(exported: Path) -> None:
    """TensorRT's KV cache layer wants the capacity static; the weights stay where they are."""
    if exported.name == Precision.FP32.value:
        pytest.skip("TensorRT has no float32 kernel for Attention; its engines are made from fp16 bundles")
    model = onnx.load(str(exported / "decoder.onnx"), load_external_data=False)
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "capacity":
                dim.dim_value = CAPACITY
    path = exported / "decoder_static.onnx"
    onnx.save(model, str(path))
    assert build(path) > 0
