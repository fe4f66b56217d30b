"""ONNX Runtime on a real GPU, where one is present: fp16 there against fp32 on the processor, and where nodes run."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.models.checkpoint import open_checkpoint, shipped_checkpoint
from gar_edge.models.nano.scenes import draw_scene
from gar_edge.models.sizes import Size
from gar_edge.runtime import Gar, GarBackendError, Options
from gar_edge.runtime.engines.gpu import nvidia_gpu_is_visible
from gar_edge.runtime.engines.onnxruntime.cuda_provider import CudaProviderBackend

ANSWERS, AGREEMENT = 200, 0.99
OPTIONS = Options(max_new_tokens=24)

pytestmark = pytest.mark.skipif(
    not nvidia_gpu_is_visible() or "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="no CUDA GPU, or an ONNX Runtime without its CUDA provider",
)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Gar:
    """gar-nano in fp32 on the processor."""
    checkpoint = open_checkpoint(shipped_checkpoint(Size.NANO), name="gar-nano")
    folder = tmp_path_factory.mktemp("bundles") / "nano-fp32"
    options = ExportOptions(Precision.FP32, validate=False)
    return Gar.load(export_bundle(checkpoint, folder, options, Silent()).folder, backend="onnxruntime")


def test_fp16_answers_as_fp32_does_on_the_processor(half_nano: Path, exact: Gar) -> None:
    """Descriptions of every region of fresh scenes, the later ones of a scene from reused tiles."""
    gar, rng, equal = Gar.load(half_nano, backend="cuda"), np.random.default_rng(5), []
    while len(equal) < ANSWERS:
        drawn = draw_scene(rng)
        masks = [mask for mask in drawn.masks if mask.any()]
        found, expected = (one.open(drawn.image).describe_all(masks, options=OPTIONS) for one in (gar, exact))
        equal += [a.tokens == b.tokens for a, b in zip(found, expected, strict=True)]
    assert np.mean(equal) >= AGREEMENT


def test_fp32_is_exact(exact: Gar) -> None:
    gar, drawn = Gar.load(exact.bundle.folder, backend="cuda"), draw_scene(np.random.default_rng(6))
    masks = [mask for mask in drawn.masks if mask.any()]
    found, expected = (one.open(drawn.image).describe_all(masks, options=OPTIONS) for one in (gar, exact))
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]


@pytest.mark.parametrize(("graph", "copies"), [("encoder", 0), ("decoder", 0), ("roi_replay", 6)])
def test_no_tensor_travels(half_nano: Path, tmp_path: Path, graph: str, copies: int) -> None:
    """Copies between GPU and processor in the optimised graph; the replay's are shapes, made of the grid."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(half_nano / f"{graph}.onnx", options, providers=["CUDAExecutionProvider"])
    nodes = onnx.load(tmp_path / "optimised.onnx", load_external_data=False).graph.node
    counts = collections.Counter(node.op_type for node in nodes)
    assert counts["MemcpyToHost"] + counts["MemcpyFromHost"] <= copies


def test_the_back_end_is_there(half_nano: Path) -> None:
    """Where there is a GPU and the provider, nothing else may be missing silently."""
    try:
        backend = Gar.load(half_nano, backend="cuda").pipeline.backend
    except GarBackendError as error:
        pytest.fail(str(error))
    assert isinstance(backend, CudaProviderBackend)
