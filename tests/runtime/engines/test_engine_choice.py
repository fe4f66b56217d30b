"""Which engine answers: what "auto" takes and says, and what is missing where one is asked for by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fakes.gpu import FakeGpu

from gar_edge.runtime import Gar, GarBackendError


def test_auto_takes_tensorrt_where_there_is_a_gpu(own_nano: Path, fake_gpu: FakeGpu) -> None:
    assert Gar.load(own_nano).pipeline.backend.name == "tensorrt"


def test_auto_without_a_gpu_is_quiet(own_nano: Path, fake_gpu: FakeGpu, recwarn: pytest.WarningsRecorder) -> None:
    fake_gpu.cuda.present = False
    assert Gar.load(own_nano).pipeline.backend.name == "onnxruntime"
    assert not recwarn.list
    assert not (own_nano / "engines").exists()


def test_auto_falls_back_with_one_warning(tiny_bundle: Path, fake_gpu: FakeGpu) -> None:
    with pytest.warns(UserWarning, match=r"the GPU is not used.*fp32.*gar-export --fp16") as caught:
        assert Gar.load(tiny_bundle).pipeline.backend.name == "onnxruntime"
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)


def test_auto_without_tensorrt_says_what_to_install(
    own_nano: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.warns(UserWarning, match=r"TensorRT is not installed; pip install 'gar-edge\[tensorrt\]'"):
        assert Gar.load(own_nano).pipeline.backend.name == "onnxruntime"


@pytest.mark.parametrize(("name", "extra"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "rtx")])
def test_a_library_asked_for_by_name_and_missing(
    own_nano: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(GarBackendError, match=rf"is not installed; pip install 'gar-edge\[{extra}\]'"):
        Gar.load(own_nano, backend=name)


def test_cuda_python_missing(own_nano: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(GarBackendError, match="cuda-python is not installed; pip install cuda-python"):
        Gar.load(own_nano, backend="tensorrt")


def test_no_gpu_behind_the_library(own_nano: Path, fake_gpu: FakeGpu) -> None:
    fake_gpu.cuda.present = False
    with pytest.raises(GarBackendError, match=r"no NVIDIA GPU can be used here .*no device"):
        Gar.load(own_nano, backend="tensorrt")


def test_an_unknown_backend(own_nano: Path) -> None:
    with pytest.raises(GarBackendError, match="'vulkan' is unknown; choose from auto, onnxruntime, cuda, tensorrt"):
        Gar.load(own_nano, backend="vulkan")
