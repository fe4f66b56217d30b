"""The compat decoder in a TensorRT compiler without a GPU: from an empty past to a long one."""

from pathlib import Path

import onnx
import pytest
from helpers.needs import from_dev
from helpers.shapes import SHAPES

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import TOTAL, Precision
from gar_edge.export.progress import Silent
from gar_edge.export.quantise import Quantising
from gar_edge.models.standin import random_checkpoint_of

trt = pytest.importorskip("tensorrt_rtx", reason=from_dev("tensorrt-rtx"))

# Smallest, usual and largest value of each dimension that varies.
PREFILL = {"batch": (1, 1, 1), "length": (1, 64, 128), "past": (0, 0, 128), TOTAL: (1, 64, 256), "selected": (1, 1, 4)}
DECODE = {"batch": (1, 1, 1), "length": (1, 1, 1), "past": (1, 200, 255), TOTAL: (2, 201, 256), "selected": (1, 1, 1)}


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8, Precision.FP8])
def test_builds(precision: Precision, tmp_path: Path) -> None:
    """For sm_86 (8-bit floats: sm_89), with a profile for prefill and one for decode steps."""
    options = ExportOptions(precision, validate=False, quantising=Quantising(samples=2), compat=True)
    folder = export_bundle(random_checkpoint_of(SHAPES["tied"], "tiny"), tmp_path / "b", options, Silent()).folder
    path = folder / "decoder_compat.onnx"
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    capability = trt.ComputeCapability.SM89 if precision is Precision.FP8 else trt.ComputeCapability.SM86
    config.set_compute_capability(capability, 0)
    inputs = onnx.load(str(path), load_external_data=False).graph.input
    for ranges in (PREFILL, DECODE):
        profile = builder.create_optimization_profile()
        for value in inputs:
            dims = value.type.tensor_type.shape.dim
            sizes = [[ranges[d.dim_param][i] if d.dim_param else d.dim_value for d in dims] for i in range(3)]
            profile.set_shape(value.name, *sizes)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    assert engine.nbytes > 0
