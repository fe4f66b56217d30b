"""TensorRT's fake, up to an engine: each broken rule is caught, and its names are the real one's."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from conftest import FakeGpu
from fake_cuda import Violation
from fake_tensorrt import FakeTensorRt, ILogger
from fake_tensorrt_engine import FakeProfile, Plan
from needs import from_dev

from gar_edge.runtime.tensorrt.installed import load_library
from gar_edge.runtime.tensorrt.onnx_file import strip_functions

HIDDEN = 128  # gar-nano's


def parser(trt: FakeTensorRt, model: bytes) -> tuple[Any, bool]:
    builder = trt.Builder(ILogger())
    network = builder.create_network(1)
    made = trt.OnnxParser(network, ILogger())
    return made, made.parse(model, "model.onnx")


def test_the_parser_wants_a_static_capacity(trt: FakeTensorRt, half_nano: Path) -> None:
    made, parsed = parser(trt, (half_nano / "decoder.onnx").read_bytes())
    assert not parsed
    assert "static sequence length" in made.get_error(0).desc()


def test_the_parser_wants_a_body_or_a_plugin(trt: FakeTensorRt, half_nano: Path) -> None:
    model = (half_nano / "roi_replay.onnx").read_bytes()
    assert parser(trt, model)[1]
    assert not parser(trt, strip_functions(model))[1]
    trt.registry.creators.append("a library")
    assert parser(trt, strip_functions(model))[1]


@pytest.mark.parametrize(("version", "wins"), [("10.3.0", False), ("10.7.0", True), ("10.15.1", True)])
def test_a_known_plugin_wins_over_the_body(trt: FakeTensorRt, half_nano: Path, version: str, wins: bool) -> None:
    trt.__version__ = version
    trt.registry.creators.append("any library")
    network = trt.Builder(ILogger()).create_network(1)
    file = half_nano / "roi_replay.onnx"
    assert trt.OnnxParser(network, ILogger()).parse(file.read_bytes(), str(file))
    assert network.plugin is wins


@pytest.mark.parametrize("missing", ["grid", "boxes"])
def test_the_builder_wants_every_range(trt: FakeTensorRt, half_nano: Path, missing: str) -> None:
    builder = trt.Builder(ILogger())
    network = builder.create_network(1)
    assert trt.OnnxParser(network, ILogger()).parse((half_nano / "roi_replay.onnx").read_bytes(), "model.onnx")
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    profile.set_shape("features", *([tiles, 16, HIDDEN] for tiles in (2, 3, 5)))
    if missing != "boxes":
        profile.set_shape("boxes", [1, 4], [1, 4], [5, 4])
    if missing != "grid":
        profile.set_shape_input("grid", [1, 1], [2, 2], [2, 2])
    config.add_optimization_profile(profile)
    config.progress_monitor = Quiet()
    with pytest.raises(Violation, match=missing):
        builder.build_serialized_network(network, config)


class Quiet:
    def phase_start(self, *_: object) -> None: ...

    def phase_finish(self, *_: object) -> None: ...

    def step_complete(self, *_: object) -> bool:
        return True


def test_profiles_are_in_order_and_networks_strongly_typed(trt: FakeTensorRt) -> None:
    with pytest.raises(Violation, match="out of order"):
        FakeProfile().set_shape("x", [2], [1], [3])
    with pytest.raises(Violation, match="strongly typed"):
        trt.Builder(ILogger()).create_network(0)


def test_engines_of_elsewhere_are_refused(trt: FakeTensorRt, half_nano: Path) -> None:
    file = half_nano / "roi_replay.onnx"
    for version, device in (("9.9", trt.device), (trt.__version__, ("other", (8, 7)))):
        errors = ILogger()
        content = pickle.dumps(Plan(file.read_bytes(), str(file), [], version, device, False))
        assert trt.Runtime(errors).deserialize_cuda_engine(content) is None
        assert "not compatible" in errors.messages[0]
    errors = ILogger()
    assert trt.Runtime(errors).deserialize_cuda_engine(b"no engine") is None
    assert errors.messages == ["Magic tag does not match"]


@pytest.mark.parametrize("kernel", [False, True])
def test_only_an_engine_that_carries_its_kernel_needs_no_library(
    trt: FakeTensorRt, half_nano: Path, kernel: bool
) -> None:
    file, errors = half_nano / "roi_replay.onnx", ILogger()
    plan = Plan(file.read_bytes(), str(file), [], trt.__version__, trt.device, plugin=True, kernel=kernel)
    assert (trt.Runtime(errors).deserialize_cuda_engine(pickle.dumps(plan)) is not None) is kernel
    assert errors.messages == ([] if kernel else ["getCreator could not find RoiReplay"])


def test_a_plugin_library_is_loaded_once(trt: FakeTensorRt, tmp_path: Path) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(b"plugin")
    trt.registry.load_library(str(library))
    with pytest.raises(Violation, match="loaded twice"):
        trt.registry.load_library(str(library))


def test_a_fake_is_as_new_as_it_says(fake_gpu: FakeGpu) -> None:
    assert load_library("tensorrt").graph_form is None
    for version, form in (("10.3.0", "compat"), ("10.13.3.9", "compat"), ("10.15.0", None), ("11.4.1", None)):
        fake_gpu.tensorrt.__version__ = version
        assert load_library("tensorrt").graph_form == form
    assert isinstance(fake_gpu.tensorrt, FakeTensorRt)


def test_the_real_libraries_have_what_the_fakes_have(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name that the back end may use, in the modules that can be installed without a GPU."""
    monkeypatch.undo()
    rtx = pytest.importorskip("tensorrt_rtx", reason=from_dev("tensorrt-rtx"))
    config, engine, context = rtx.IBuilderConfig, rtx.ICudaEngine, rtx.IExecutionContext
    used = {
        rtx: "Builder OnnxParser Runtime ILogger IProgressMonitor TensorLocation MemoryPoolType ComputeCapability "
        "CudaGraphStrategy ExecutionContextAllocationStrategy NetworkDefinitionCreationFlag get_plugin_registry "
        "__version__",
        rtx.Builder: "create_network create_builder_config create_optimization_profile build_serialized_network",
        rtx.OnnxParser: "parse num_errors get_error",
        rtx.ParserError: "desc",
        rtx.INetworkDefinition: "num_inputs get_input",
        rtx.ITensor: "name shape is_shape_tensor",
        rtx.IOptimizationProfile: "set_shape set_shape_input",
        config: "add_optimization_profile set_memory_pool_limit progress_monitor create_timing_cache set_timing_cache "
        "get_timing_cache num_compute_capabilities set_compute_capability",
        rtx.Runtime: "deserialize_cuda_engine",
        engine: "get_tensor_location create_execution_context create_runtime_config device_memory_size_v2",
        rtx.IRuntimeConfig: "cuda_graph_strategy set_execution_context_allocation_strategy create_runtime_cache "
        "set_runtime_cache",
        rtx.IRuntimeCache: "serialize deserialize",
        rtx.ExecutionContextAllocationStrategy: "USER_MANAGED",
        context: "set_optimization_profile_async set_device_memory set_input_shape set_tensor_address execute_async_v3",
        rtx.IPluginRegistry: "get_creator load_library",
    }
    for owner, names in used.items():
        assert not [name for name in names.split() if not hasattr(owner, name)]
