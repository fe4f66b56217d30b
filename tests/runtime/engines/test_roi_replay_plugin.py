"""The ahead-of-time plugin in NVIDIA's own `tensorrt.plugin`, over a stand-in for the compiled half of TensorRT."""

import builtins
import ctypes
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from fakes import tensorrt_plugin as tensorrt_stand_in
from fakes.tensorrt_plugin import DataType, Tensor, bindings, build
from helpers.roi_replay_kernel import HostKernel, random_case
from helpers.shapes import SHAPES

from gar_edge.export.replay_graph import NODE, replay_model
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.runtime.engines.roi_replay_plugin import aot, compiler, device, register_replay_plugin
from gar_edge.runtime.engines.roi_replay_plugin.kernel import ENTRY, Element, Variant
from gar_edge.runtime.errors import GarBackendError

FEATURES = {Element.FLOAT32: DataType.FLOAT, Element.FLOAT16: DataType.HALF, Element.BFLOAT16: DataType.BF16}


class RecordingCompiler:
    """Notes what it is asked for; its PTX is a placeholder."""

    def __init__(self) -> None:
        self.asked: list[tuple[Variant, int]] = []
        self.loaded: list[bytes] = []

    def ptx(self, variant: Variant, architecture: int) -> bytes:
        self.asked.append((variant, architecture))
        return b"ptx of " + variant.element.name.encode()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> RecordingCompiler:
    """In place of CUDA: a compiler that takes notes and a device of compute capability 8.7."""
    recorder = RecordingCompiler()
    monkeypatch.setattr(aot, "find_compiler", lambda: recorder)
    monkeypatch.setattr(aot, "current_architecture", lambda: 87)
    monkeypatch.setattr(aot, "load_module", recorder.loaded.append)
    monkeypatch.setattr(aot, "unload_module", lambda module: None)
    return recorder


@pytest.fixture
def trt(recorder: RecordingCompiler) -> Iterator[ModuleType]:
    """`tensorrt` with the plugin registered."""
    with tensorrt_stand_in.tensorrt(bindings()) as module:
        register_replay_plugin()
        recorder.asked.clear()
        yield module


class Status(IntEnum):
    """As cuda-python's are."""

    OK = 0
    cudaErrorNoDevice = 100  # noqa: N815
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222


class FakeCuda:
    """What is used of `cuda.bindings`: one device of compute capability 11.0 and a driver of CUDA 12.6."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = Status.OK
        self.refuses = b""
        parts = {"Major": 11, "Minor": 0}
        self.runtime = SimpleNamespace(
            cudaDeviceAttr=SimpleNamespace(**{f"cudaDevAttrComputeCapability{part}": part for part in parts}),
            cudaGetDevice=lambda: (self.status, 0),
            cudaDeviceGetAttribute=lambda part, device: (self.status, parts[part]),
            cudaFree=self.free,
            cudaDriverGetVersion=lambda: (Status.OK, 12060),
        )
        self.driver = SimpleNamespace(
            cuModuleLoadData=self.load,
            cuModuleUnload=lambda module: self.calls.append(f"unload {module}"),
        )

    def free(self, pointer: int) -> tuple[Any]:
        self.calls.append("cudaFree")
        return (self.status,)

    def load(self, address: int) -> tuple[Any, str | None]:
        image = ctypes.string_at(address)
        self.calls.append(f"load {image.decode()}")
        if image == self.refuses:
            return Status.CUDA_ERROR_UNSUPPORTED_PTX_VERSION, None
        return Status.OK, image.decode()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(device, "_cuda_python", lambda: fake)
    return fake


def node(**attributes: Any) -> onnx.NodeProto:
    given = {"output_size": 4, "sampling_ratio": 2, "spatial_scale": 1 / 28, "plugin_namespace": "gar", **attributes}
    return onnx.helper.make_node(NODE, ["features", "grid", "boxes"], ["replayed"], domain="gar", **given)


def inputs(
    features: Any = DataType.HALF, dims: tuple[int | str, ...] = ("tiles", 16, 24), **types: Any
) -> list[Tensor]:
    grid = Tensor(types.get("grid", DataType.INT64), (2,))
    return [Tensor(features, dims), grid, Tensor(types.get("boxes", DataType.FLOAT), ("regions", 4))]


@pytest.mark.parametrize("element", Element)
def test_an_engine_gets_the_kernel_and_its_launch(
    trt: ModuleType, recorder: RecordingCompiler, element: Element
) -> None:
    built = build(trt, node(), inputs(FEATURES[element]))
    assert built.output_type is FEATURES[element]
    assert (built.kernel, built.code) == (ENTRY, b"ptx of " + element.name.encode())
    assert recorder.asked == [(Variant(element, 4, float(np.float32(1 / 28))), 87)]
    assert built.sizes(tiles=5, regions=3) == ((3, 16, 24), (3 * 16, 1, 1), (32, 1, 1), [5, 24])
    assert built.sizes(tiles=9, regions=1) == ((1, 16, 24), (16, 1, 1), (32, 1, 1), [9, 24])


def test_the_exported_node_is_the_plugins(trt: ModuleType, recorder: RecordingCompiler) -> None:
    """Name, namespace and attributes come from the exporter."""
    config = random_checkpoint_of(SHAPES["tied"], "tiny").config
    (exported,) = ir.to_proto(replay_model(config, ir.DataType.FLOAT16)).graph.node
    dims = ("tiles", config.tile_tokens, config.text.hidden)
    built = build(trt, exported, inputs(DataType.HALF, dims))
    assert recorder.asked[0][0] == Variant(Element.FLOAT16, config.tile_side, config.replay_spatial_scale)
    assert built.sizes(tiles=3, regions=2)[0] == (2, config.tile_tokens, config.text.hidden)


@pytest.mark.parametrize("element", Element)
def test_what_the_engine_launches_gives_the_references_result(
    trt: ModuleType, element: Element, tmp_path: Path
) -> None:
    """Grid, block and arguments are TensorRT's, from the symbolic expressions; the kernel runs as C++."""
    kernel = HostKernel(element, tmp_path)
    random = np.random.default_rng(21)
    for _ in range(40):
        case = random_case(random)
        tiles, *fixed = case.features.shape
        attributes = {"output_size": case.side, "spatial_scale": case.scale}
        built = build(trt, node(**attributes), inputs(FEATURES[element], ("tiles", *fixed)))
        shape, grid, block, extras = built.sizes(tiles=tiles, regions=len(case.boxes))
        assert grid[1:] == block[1:] == (1, 1)
        assert torch.equal(kernel.launch(case, shape, grid[0], block[0], extras), kernel(case))


def test_the_trial_kernel_is_loaded(trt: ModuleType, recorder: RecordingCompiler) -> None:
    assert recorder.loaded == [b"ptx of FLOAT16"]


def test_registering_again_does_nothing(trt: ModuleType, recorder: RecordingCompiler) -> None:
    register_replay_plugin()
    assert recorder.asked == []
    assert len(trt.get_plugin_registry().creators) == 1


@pytest.mark.parametrize(
    ("bad_node", "bad_inputs", "said"),
    [
        (node(sampling_ratio=4), inputs(), "sampling_ratio 2"),
        (node(output_size=0), inputs(), "output_size > 0"),
        (node(spatial_scale=0.0), inputs(), "spatial_scale > 0"),
        (node(spatial_scale=float("nan")), inputs(), "spatial_scale > 0"),
        (node(), inputs(DataType.INT8), "fp32, fp16 or bf16"),
        (node(), inputs(dims=("tiles", 15, 24)), r"\[tiles, 16, channels\]"),
        (node(), inputs(dims=("tiles", "tokens", 24)), r"\[tiles, 16, channels\]"),
        (node(), inputs(dims=("tiles", 16, "channels")), r"\[tiles, 16, channels\]"),
        (node(), inputs(grid=DataType.INT32), "int64 grid"),
        (node(), inputs(boxes=DataType.HALF), "float32 boxes"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused(
    trt: ModuleType, bad_node: onnx.NodeProto, bad_inputs: list[Tensor], said: str
) -> None:
    with pytest.raises(GarBackendError, match=said):
        build(trt, bad_node, bad_inputs)


def test_without_tensorrt_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(GarBackendError, match=r"install TensorRT 10\.9"):
        register_replay_plugin()


def test_a_tensorrt_without_python_plugins_is_refused(recorder: RecordingCompiler) -> None:
    """10.3: the module is not there."""
    with tensorrt_stand_in.tensorrt(None), pytest.raises(GarBackendError, match=r"10\.9 or later.*C\+\+ plugin"):
        register_replay_plugin()


def test_a_tensorrt_without_ahead_of_time_plugins_is_refused(recorder: RecordingCompiler) -> None:
    """10.7 and 10.8: the module is there, but knows only plugins that call Python back."""
    with tensorrt_stand_in.tensorrt(None, "10.7.0") as module:
        sys.modules["tensorrt.plugin"] = module.plugin = ModuleType("tensorrt.plugin")  # type: ignore[attr-defined]
        with pytest.raises(GarBackendError, match=r"TensorRT 10\.7\.0 has no ahead-of-time.*C\+\+ plugin"):
            register_replay_plugin()


def test_both_forms_in_one_process_are_refused(recorder: RecordingCompiler) -> None:
    with tensorrt_stand_in.tensorrt(bindings()) as module:
        cpp = SimpleNamespace(name=NODE, plugin_version="1")
        module.get_plugin_registry().register_creator(cpp, "gar")
        with pytest.raises(GarBackendError, match="loaded in this process already"):
            register_replay_plugin()


def test_a_compiler_that_fails_is_noticed_before_the_build(
    recorder: RecordingCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(variant: Variant, architecture: int) -> bytes:
        raise GarBackendError("no such architecture")

    monkeypatch.setattr(recorder, "ptx", refuse)
    with tensorrt_stand_in.tensorrt(bindings()) as module:
        with pytest.raises(GarBackendError, match="no such architecture"):
            register_replay_plugin()
        assert module.get_plugin_registry().creators == {}


def test_neither_nvrtc_nor_nvcc_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "cuda.bindings")
    monkeypatch.setattr(compiler, "find_nvcc", lambda: None)
    with pytest.raises(GarBackendError, match=r"nvidia-cuda-nvrtc.*nvcc"):
        compiler.find_compiler()


def test_nvcc_stands_in_for_nvrtc(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "cuda.bindings")
    monkeypatch.setattr(compiler, "find_nvcc", lambda: "/opt/cuda/bin/nvcc")
    assert compiler.find_compiler() == compiler.Nvcc("/opt/cuda/bin/nvcc")


def test_nvcc_is_found_in_cuda_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvcc").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert compiler.find_nvcc() == str(tmp_path / "bin" / "nvcc")


def test_the_device_is_asked_through_cuda_python(cuda: FakeCuda) -> None:
    assert device.current_architecture() == 110


def test_a_module_is_loaded_into_the_devices_context(cuda: FakeCuda) -> None:
    device.unload_module(device.load_module(b"ptx"))
    assert cuda.calls == ["cudaFree", "load ptx", "unload ptx"]


def test_ptx_that_the_driver_refuses_names_its_version(cuda: FakeCuda) -> None:
    cuda.refuses = b"too new"
    with pytest.raises(GarBackendError, match=r"CUDA_ERROR_UNSUPPORTED_PTX_VERSION.*driver's CUDA 12\.6"):
        device.load_module(b"too new")


def test_no_device_is_said_with_cudas_word(cuda: FakeCuda) -> None:
    cuda.status = Status.cudaErrorNoDevice
    for ask in (device.current_architecture, lambda: device.load_module(b"ptx")):
        with pytest.raises(GarBackendError, match=r"cudaErrorNoDevice.*nvidia-smi"):
            ask()


def test_no_cuda_python_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "cuda.bindings")
    with pytest.raises(GarBackendError, match="pip install cuda-bindings"):
        device.current_architecture()


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make a package look as if it were not installed."""
    real: Callable[..., Any] = builtins.__import__

    def refuse(module: str, *arguments: Any, **named: Any) -> Any:
        if module == name:
            raise ImportError(f"No module named '{module}'")
        return real(module, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_the_stand_in_refuses_a_second_creator() -> None:
    registry = tensorrt_stand_in.Registry()
    creator = SimpleNamespace(name="a", plugin_version="1")
    assert registry.register_creator(creator, "n")
    with pytest.raises(AssertionError, match="twice"):
        registry.register_creator(creator, "n")


def test_the_stand_in_takes_only_int32_expressions_to_launch_with() -> None:
    setter = tensorrt_stand_in.Setter(("grid_x",))
    for bad in (3, SimpleNamespace(type="INT", dtype="INT64", expr=3)):
        with pytest.raises(AssertionError):
            setter.grid_x = bad
    with pytest.raises(AssertionError):
        setter.grid_w = 3
    with pytest.raises(AssertionError):
        setter[0] = 3


def test_the_stand_in_keeps_dynamic_sizes_from_the_build() -> None:
    builder = tensorrt_stand_in.IExprBuilder()
    size = builder.operation(tensorrt_stand_in.DimensionOperation.PROD, builder.symbol("regions"), builder.constant(16))
    assert not size.is_constant()
    with pytest.raises(AssertionError, match="not known at build time"):
        size.get_constant_value()
    assert size.value({"regions": 3}) == 48
