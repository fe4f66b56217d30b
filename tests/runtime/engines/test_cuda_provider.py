"""ONNX Runtime on the GPU, on a fake that runs it on the processor: answers, what is queued, and what goes wrong."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes.gpu import FakeGpu
from fakes.onnxruntime import CPU, FakeOnnxRuntime

from gar_edge.runtime import Answer, Gar, GarBackendError, GarBundleError, Options
from gar_edge.runtime.model.start import start_sequence

OPTIONS = Options(max_new_tokens=6)
EXAMPLES = Path(__file__).parents[3] / "examples"
QUESTION = "Is <Prompt0> larger or smaller than <Prompt1>?"


def answers(gar: Gar, picture: np.ndarray) -> list[Answer]:
    """A description, and two questions that reuse some of what came before."""
    height, width = picture.shape[:2]
    left, right = np.zeros((2, height, width), bool)
    left[10:60, 5:50], right[30:80, 70:120] = True, True
    scene = gar.open(picture, max_tiles=4)
    pair = {0: left, 1: right}
    return [scene.describe(left, options=OPTIONS), *(scene.ask(QUESTION, pair, options=OPTIONS) for _ in range(2))]


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_answers_are_the_processors_token_for_token(
    half_nano: Path, tiny_bundle: Path, fake_provider: FakeOnnxRuntime, picture: np.ndarray, precision: str
) -> None:
    bundle = half_nano if precision == "fp16" else tiny_bundle
    gar = Gar.load(bundle, backend="cuda")
    assert gar.pipeline.backend.name == "cuda"
    found, expected = answers(gar, picture), answers(Gar.load(bundle, backend="onnxruntime"), picture)
    assert [(answer.tokens, answer.reuse) for answer in found] == [(one.tokens, one.reuse) for one in expected]


def test_the_compat_decoder_answers_alike(
    compat_bundle: Path, fake_provider: FakeOnnxRuntime, picture: np.ndarray
) -> None:
    gar = Gar.load(compat_bundle, backend="cuda", decoder="compat")
    assert gar.manifest.graphs["decoder"].appends
    expected = answers(Gar.load(compat_bundle, backend="onnxruntime", decoder="compat"), picture)
    assert [answer.tokens for answer in answers(gar, picture)] == [answer.tokens for answer in expected]


def test_one_wait_per_token_and_nothing_allocated(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    gar, cuda = Gar.load(half_nano, backend="cuda"), fake_provider.cuda
    answer = gar.open(np.zeros((90, 130, 3), np.uint8)).describe(np.ones((90, 130), bool), options=OPTIONS)
    assert cuda.calls["synchronise"] == len(answer.tokens)  # encoder, replay and prefill are chained
    sequence, embed = start_sequence(gar.pipeline.decoder, 8), np.zeros((1, gar.manifest.dimensions.hidden), np.float16)
    sequence.step(embed).tokens()
    count, copies = len(cuda.memory.allocations), cuda.calls["copy"]
    for _ in range(5):
        sequence.step(embed).tokens()
    assert len(cuda.memory.allocations) == count
    assert cuda.calls["copy"] - copies == 5 * 4  # embedding, mask, write index; token back


def test_regions_side_by_side_on_caches_that_grow(
    half_nano: Path, fake_provider: FakeOnnxRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts take several runs, answers end at different steps, and a third region waits for a place."""
    for module in ("in_place", "batch"):
        monkeypatch.setattr(f"gar_edge.runtime.model.{module}.STEPS_AHEAD", 1)
    masks = [EXAMPLES / f"scene_1_mask_{number}.png" for number in range(3)]
    found: dict[str, list[tuple[int, ...]]] = {}
    for backend in ("cuda", "onnxruntime"):
        gar = Gar.load(half_nano, backend=backend, batch=2)
        gar.pipeline.decoder.chunk = 100
        scene, options = gar.open(EXAMPLES / "scene_1.png"), Options(max_new_tokens=60)
        answers = [*scene.describe_all(masks, options=options), scene.describe(masks[0], options=options)]
        found[backend] = [answer.tokens for answer in answers]
        assert gar.scheduler.places == 2
    assert found["cuda"] == found["onnxruntime"]
    assert len({len(tokens) for tokens in found["cuda"]}) > 1


def test_free_memory_is_the_gpus(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    gar, cuda = Gar.load(half_nano, backend="cuda"), fake_provider.cuda
    assert gar.pipeline.backend.free_memory() == cuda.capacity - cuda.used > 0


def test_sessions_share_our_stream(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    Gar.load(half_nano, backend="cuda")
    assert len({options["user_compute_stream"] for options in fake_provider.options}) == 1
    assert len(fake_provider.options) == 3


def test_everything_is_freed_with_the_model(
    half_nano: Path, fake_provider: FakeOnnxRuntime, picture: np.ndarray
) -> None:
    gar, cuda = Gar.load(half_nano, backend="cuda"), fake_provider.cuda
    answers(gar, picture)
    assert cuda.used > 0
    del gar
    gc.collect()
    assert cuda.used == 0


# What goes wrong


def test_an_onnxruntime_without_cuda(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    fake_provider.providers = [CPU]
    with pytest.raises(GarBackendError, match=r"built without CUDA; pip uninstall onnxruntime, then pip install"):
        Gar.load(half_nano, backend="cuda")


def test_an_older_onnxruntime(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    fake_provider.__version__ = "1.27.0"
    with pytest.raises(GarBackendError, match=r"1\.27\.0 lacks CUDA kernels.*onnxruntime-gpu>=1\.28"):
        Gar.load(half_nano, backend="cuda")


def test_a_missing_library_of_cudas(
    half_nano: Path, fake_provider: FakeOnnxRuntime, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_provider.printed = "Failed to load libcublasLt.so.13: cannot open shared object file\nPlease follow the page\n"
    with pytest.raises(
        GarBackendError, match=r"needs CUDA 13\.0's libraries .*libcublasLt\.so\.13.*onnxruntime-gpu\[cuda,cudnn\]"
    ):
        Gar.load(half_nano, backend="cuda")
    assert capsys.readouterr().out == ""


def test_no_cudnn(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    fake_provider.cudnn = False
    with pytest.raises(GarBackendError, match=r"needs cuDNN 9, which cannot be loaded; pip install .*cudnn"):
        Gar.load(half_nano, backend="cuda")


def test_a_provider_that_does_not_start(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    fake_provider.starts = False
    with pytest.raises(GarBackendError, match=r"cannot start its CUDA provider.*driver of CUDA 13\.0"):
        Gar.load(half_nano, backend="cuda")


def test_no_onnxruntime_at_all(half_nano: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(GarBackendError, match=r"ONNX Runtime is not installed; pip install .*gar-edge\[gpu\]"):
        Gar.load(half_nano, backend="cuda")


def test_no_gpu(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    fake_provider.cuda.present = False
    with pytest.raises(GarBackendError, match="no NVIDIA GPU can be used here"):
        Gar.load(half_nano, backend="cuda")


def test_memory_that_runs_out_in_a_run(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    gar = Gar.load(half_nano, backend="cuda")
    fake_provider.failure = "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9"
    with pytest.raises(GarBackendError, match=r"encoder: ONNX Runtime failed .*out of memory: use a smaller") as error:
        gar.open(np.zeros((90, 130, 3), np.uint8)).describe(np.ones((90, 130), bool))
    assert "\n" not in str(error.value)


def test_memory_that_runs_out_for_a_buffer(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    gar = Gar.load(half_nano, backend="cuda")
    fake_provider.cuda.capacity = fake_provider.cuda.used
    with pytest.raises(GarBackendError, match="out of GPU memory for a buffer of 1 MiB; use a smaller or quantised"):
        gar.pipeline.backend.empty((1 << 20,), np.dtype(np.uint8))


def test_buffers_of_the_processor_are_refused(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    gar, host = Gar.load(half_nano, backend="cuda"), Gar.load(half_nano, backend="onnxruntime").pipeline.backend
    with pytest.raises(TypeError, match="HostBuffer is not a buffer on the GPU"):
        gar.pipeline.decoder.session.bind({}, {"logits": host.zeros((1, 4), np.dtype(np.float16))})


def test_a_compat_decoder_that_is_not_there(half_nano: Path, fake_provider: FakeOnnxRuntime) -> None:
    with pytest.raises(GarBundleError, match="has no compat decoder"):
        Gar.load(half_nano, backend="cuda", decoder="compat")


# "auto"


def test_auto_takes_cuda_after_the_tensorrts(
    own_nano: Path,
    fake_provider: FakeOnnxRuntime,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    assert Gar.load(own_nano).pipeline.backend.name == "cuda"
    assert not recwarn.list


def test_auto_takes_cuda_for_what_tensorrt_refuses(tiny_bundle: Path, fake_provider: FakeOnnxRuntime) -> None:
    assert Gar.load(tiny_bundle).pipeline.backend.name == "cuda"


def test_auto_falls_back_to_the_processor_with_one_warning(tiny_bundle: Path, fake_provider: FakeOnnxRuntime) -> None:
    fake_provider.providers = [CPU]
    with pytest.warns(UserWarning, match="the GPU is not used, ONNX Runtime answers on the processor") as caught:
        assert Gar.load(tiny_bundle).pipeline.backend.name == "onnxruntime"
    assert len(caught) == 1
