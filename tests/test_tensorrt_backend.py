"""The TensorRT back end on a fake that enforces TensorRT's and CUDA's rules: answers, and how they come about."""

from __future__ import annotations

import gc
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeGpu
from PIL import Image

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.models.checkpoint import open_checkpoint, shipped_checkpoint
from gar_edge.models.sizes import Size
from gar_edge.runtime import Answer, Gar, GarBackendError, GarPromptError, Options
from gar_edge.runtime.bundle import Bundle
from gar_edge.runtime.tensorrt import memory
from gar_edge.runtime.tensorrt.cuda import Cuda
from gar_edge.runtime.tensorrt.engines import build_engines, here
from gar_edge.runtime.tensorrt.installed import load_library
from gar_edge.runtime.tensorrt.plan import Limits

EXAMPLES = Path(__file__).parents[1] / "examples"
OPTIONS = Options(max_new_tokens=12)
QUESTION = "Is <Prompt0> larger or smaller than <Prompt1>?"


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.asarray(Image.open(EXAMPLES / "scene_1.png").convert("RGB"))


@pytest.fixture(scope="module")
def masks() -> dict[int, np.ndarray]:
    return {k: np.asarray(Image.open(EXAMPLES / f"scene_1_mask_{k}.png").convert("L")) > 0 for k in range(5)}


def answers(gar: Gar, image: np.ndarray, masks: dict[int, np.ndarray]) -> list[Answer]:
    """Descriptions, questions about one to five regions, pictures of several grids, with and without reuse."""
    scene, pair = gar.open(image), {0: masks[0], 1: masks[1]}
    found = [scene.describe(masks[0], options=OPTIONS), scene.ask(QUESTION, pair, OPTIONS)]
    found += [scene.ask(QUESTION, pair, OPTIONS), scene.describe(masks[3], options=OPTIONS)]
    five = "Which of <Prompt0>, <Prompt1>, <Prompt2>, <Prompt3> and <Prompt4> is red?"
    found.append(scene.ask(five, masks, OPTIONS))
    for columns, rows in ((4, 1), (1, 4), (1, 1)):
        shape = (112 * rows, 112 * columns)
        region = np.zeros(shape, bool)
        region[20:90, 30:100] = True
        squeezed = np.asarray(Image.fromarray(image).resize(shape[::-1]))
        found.append(gar.open(squeezed).describe(region, options=OPTIONS))
    assert {answer.grid for answer in found} >= {(2, 2), (4, 1), (1, 4)}
    return found


@pytest.fixture(scope="module")
def half_nano(half_nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for this module: loading it with TensorRT puts engines into it."""
    return shutil.copytree(half_nano, tmp_path_factory.mktemp("bundles") / "nano")


@pytest.fixture(scope="module")
def expected(half_nano: Path, image: np.ndarray, masks: dict[int, np.ndarray]) -> list[Answer]:
    """ONNX Runtime's answers from the same graphs."""
    return answers(Gar.load(half_nano, backend="onnxruntime"), image, masks)


@pytest.fixture
def gar(fake_gpu: FakeGpu, half_nano: Path) -> Gar:
    return Gar.load(half_nano, backend="tensorrt")


def rebuilt(folder: Path, **limits: int) -> None:
    """Engines of other sizes, the newest in the bundle."""
    bundle, library, cuda = Bundle.open(folder), load_library("tensorrt"), Cuda.load()
    sizes = Limits.of(bundle.manifest, **limits)
    build_engines(bundle, library, here(library, cuda), sizes, None, True, cuda, lambda _: None)


@pytest.fixture
def own_nano(half_nano: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, without engines."""
    return shutil.copytree(half_nano, tmp_path / "nano", ignore=shutil.ignore_patterns("engines"))


def test_answers_are_onnx_runtimes_token_for_token(
    gar: Gar, image: np.ndarray, masks: dict[int, np.ndarray], expected: list[Answer]
) -> None:
    found = answers(gar, image, masks)
    assert gar.backend.name == "tensorrt"
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]
    assert [answer.reuse for answer in found] == [answer.reuse for answer in expected]


@pytest.fixture(scope="module")
def compat_nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gar-nano in fp16 with the decoder for older TensorRTs."""
    folder = tmp_path_factory.mktemp("bundles") / "compat"
    checkpoint = open_checkpoint(shipped_checkpoint(Size.NANO), name="gar-nano")
    options = ExportOptions(Precision.FP16, validate=False, compat=True)
    return export_bundle(checkpoint, folder, options, Silent()).folder


def test_an_older_tensorrt_takes_the_compat_decoder(
    fake_gpu: FakeGpu, compat_nano: Path, image: np.ndarray, masks: dict[int, np.ndarray]
) -> None:
    """JetPack 6's TensorRT: no KV cache in place, so past and present change places; the same tokens."""
    fake_gpu.tensorrt.__version__ = "10.3.0.26"
    gar = Gar.load(compat_nano, backend="tensorrt")
    assert gar.manifest.graphs["decoder"].appends
    found = answers(gar, image, masks)
    wanted = answers(Gar.load(compat_nano, backend="onnxruntime", decoder="compat"), image, masks)
    assert [answer.tokens for answer in found] == [answer.tokens for answer in wanted]
    assert [answer.reuse for answer in found] == [answer.reuse for answer in wanted]
    with pytest.raises(GarBackendError, match="cache holds"):
        gar.decoder.start(gar.decoder.longest + 1)


def test_one_wait_per_token_and_none_before_the_first(
    gar: Gar, fake_gpu: FakeGpu, image: np.ndarray, masks: dict[int, np.ndarray]
) -> None:
    """Encoder, replay and prefill are chained; only reading logits waits."""
    scene = gar.open(image)
    before = fake_gpu.cuda.calls["synchronise"]
    answer = scene.describe(masks[0], options=Options(max_new_tokens=6))
    assert fake_gpu.cuda.calls["synchronise"] - before == len(answer.tokens)


def test_decode_is_captured_once_and_launched_after(
    gar: Gar, fake_gpu: FakeGpu, image: np.ndarray, masks: dict[int, np.ndarray]
) -> None:
    scene, calls = gar.open(image), fake_gpu.cuda.calls
    steps = len(scene.describe(masks[0], options=OPTIONS).tokens) - 1
    assert steps > 3
    assert (calls["instantiate"], calls["launch"]) == (1, steps - 1)  # the first step warms up
    other = len(scene.describe(masks[1], options=OPTIONS).tokens) - 1
    assert (calls["instantiate"], calls["launch"]) == (1, steps - 1 + other)  # the sequence's memory is used again


def test_a_step_allocates_nothing(gar: Gar, fake_gpu: FakeGpu) -> None:
    sequence, embed = gar.decoder.start(1), np.zeros(gar.manifest.dimensions.hidden, np.float16)
    for _ in range(3):  # kernels one by one, captured, launched
        sequence.step(embed)
    count = len(fake_gpu.cuda.memory.allocations)
    for _ in range(10):
        sequence.step(embed)
    assert len(fake_gpu.cuda.memory.allocations) == count


def test_memory_is_bounded_over_many_questions(
    gar: Gar, fake_gpu: FakeGpu, image: np.ndarray, masks: dict[int, np.ndarray]
) -> None:
    used = []
    for _ in range(4):
        answers(gar, image, masks)
        gc.collect()
        used.append(fake_gpu.cuda.used)
    assert used[1] == used[2] == used[3]


def test_everything_is_freed_with_the_model(half_nano: Path, fake_gpu: FakeGpu, image: np.ndarray) -> None:
    gar = Gar.load(half_nano, backend="tensorrt")
    gar.open(image).describe(np.ones(image.shape[:2], bool), options=OPTIONS)
    assert fake_gpu.cuda.used > 0
    del gar
    gc.collect()
    assert fake_gpu.cuda.used == 0
    assert all(allocation.freed for allocation in fake_gpu.cuda.memory.allocations)
    assert all(stream.destroyed for stream in fake_gpu.cuda.streams.values())


def test_a_small_staging_budget_only_waits_more(
    gar: Gar,
    image: np.ndarray,
    masks: dict[int, np.ndarray],
    expected: list[Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "STAGING", 1 << 12)
    assert gar.open(image).describe(masks[0], options=OPTIONS).tokens == expected[0].tokens


def test_prefill_in_chunks(
    own_nano: Path,
    fake_gpu: FakeGpu,
    image: np.ndarray,
    masks: dict[int, np.ndarray],
    expected: list[Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gar_edge.runtime.tensorrt.plan.PREFILL_CHUNK", 64)
    gar = Gar.load(own_nano, backend="tensorrt")
    assert gar.decoder.chunk == 64
    assert gar.open(image).describe(masks[0], options=OPTIONS).tokens == expected[0].tokens


def test_threads_share_the_engines(
    gar: Gar, image: np.ndarray, masks: dict[int, np.ndarray], expected: list[Answer]
) -> None:
    found: dict[int, Answer] = {}

    def work(index: int) -> None:
        found[index] = gar.open(image).describe(masks[3 if index % 2 else 0], options=OPTIONS)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index].tokens for index in range(4)] == [expected[3 if index % 2 else 0].tokens for index in range(4)]


def test_two_sequences_in_turns_are_not_mixed(
    gar: Gar, image: np.ndarray, masks: dict[int, np.ndarray], expected: list[Answer]
) -> None:
    scene = gar.open(image)
    streams = [scene.stream(None, {1: masks[0]}, OPTIONS), scene.stream(None, {1: masks[3]}, OPTIONS)]
    texts = [iter(stream) for stream in streams]
    for _ in range(20):
        for text in texts:
            next(text, None)
    assert [stream.finish().tokens for stream in streams] == [expected[0].tokens, expected[3].tokens]


def test_a_decode_that_cannot_be_captured_runs_all_the_same(
    gar: Gar,
    fake_gpu: FakeGpu,
    image: np.ndarray,
    masks: dict[int, np.ndarray],
    expected: list[Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(graph: Any, flags: int) -> tuple[int, None]:
        return 2, None

    monkeypatch.setattr(fake_gpu.cuda, "cudaGraphInstantiate", refuse)
    assert gar.open(image).describe(masks[0], options=OPTIONS).tokens == expected[0].tokens
    assert fake_gpu.cuda.calls["launch"] == 0


def test_room_ends_where_the_engines_cache_does(own_nano: Path, fake_gpu: FakeGpu, image: np.ndarray) -> None:
    gar = Gar.load(own_nano, backend="tensorrt")
    whole = np.ones(image.shape[:2], bool)
    prompt = gar.open(image, 1).describe(whole, options=Options(max_new_tokens=1)).prompt_tokens
    capacity = -(-(prompt + 2) // 64) * 64
    rebuilt(own_nano, capacity=capacity)
    gar = Gar.load(own_nano, backend="tensorrt")
    assert gar.decoder.longest == capacity
    question = "<Prompt0>" + "x" * 30
    answer = gar.open(image, 1).ask(question, {0: whole}, Options(max_new_tokens=1000))
    assert answer.prompt_tokens + len(answer.tokens) <= capacity
    with pytest.raises(GarPromptError, match=f"the engine holds {capacity}.*gar-engine build --capacity 1024"):
        gar.open(image, 1).ask("<Prompt0>" + " red" * 100, {0: whole})
    with pytest.raises(GarBackendError, match=f"the engine's cache holds {capacity}; gar-engine build --capacity 5000"):
        gar.decoder.start(5000)


def test_more_tiles_than_the_engines_were_built_for(own_nano: Path, fake_gpu: FakeGpu, image: np.ndarray) -> None:
    rebuilt(own_nano, tiles=2)
    gar = Gar.load(own_nano, backend="tensorrt")
    assert len(gar.open(image).tiles.pixels) <= 3  # the bundle's own limit gives way
    with pytest.raises(GarPromptError, match=r"built for \(2\); gar-engine build --max-tiles 3"):
        gar.open(image, max_tiles=3)


def test_writing_beyond_the_cache_is_refused_before_the_engine(gar: Gar) -> None:
    sequence = gar.decoder.start(1)
    sequence.length = sequence.capacity
    with pytest.raises(GarBackendError, match="the cache holds 704 positions, 705 were asked of it"):
        sequence.step(np.zeros(gar.manifest.dimensions.hidden, np.float16))


def test_shapes_outside_every_profile(gar: Gar) -> None:
    dims = gar.manifest.dimensions
    features = gar.backend.zeros((7, dims.tile_tokens, dims.hidden), np.dtype(np.float16))
    with pytest.raises(
        GarBackendError, match=r"roi_replay: the engine was built for at most tiles 5.*given features \[7"
    ):
        gar.vision.replay(features, (3, 2), [(0.0, 0.0, 1.0, 1.0)])


@pytest.mark.parametrize("wrong", ["dtype", "shape", "foreign", "alias", "host dtype", "alignment"])
def test_wrong_buffers_never_reach_the_engine(gar: Gar, wrong: str) -> None:
    runner, dims = gar.decoder, gar.manifest.dimensions
    zeros, half = gar.backend.zeros, np.dtype(np.float16)
    cache = (1, dims.kv_heads, 704, dims.head_dim)
    inputs: dict[str, Any] = {name: zeros(cache, half) for name in runner.graph.aliases.values()}
    outputs: dict[str, Any] = {out: inputs[source] for out, source in runner.graph.aliases.items()}
    outputs["logits"] = zeros((1, dims.vocab), half)
    inputs["inputs_embeds"] = zeros((1, 1, dims.hidden), half)
    inputs["write_index"] = np.zeros(1, np.int64)
    inputs["attention_mask"] = np.ones((1, 1, 1, 704), np.bool_)
    runner.session.bind(inputs, outputs)()
    kinds: dict[str, type[Exception]] = {"foreign": TypeError, "shape": GarBackendError, "alignment": GarBackendError}
    if wrong == "dtype":
        outputs["logits"] = zeros((1, dims.vocab), np.dtype(np.float32))
    elif wrong == "shape":
        inputs["attention_mask"] = np.ones((1, 1, 1, 700), np.bool_)
    elif wrong == "foreign":
        outputs["logits"] = Gar.load(gar.bundle.folder, "onnxruntime").backend.zeros((1, dims.vocab), half)
    elif wrong == "alias":
        outputs["key_cache_0_out"] = zeros(cache, half)
    elif wrong == "host dtype":
        inputs["write_index"] = np.zeros(1, np.int32)
    else:
        inputs["inputs_embeds"] = zeros((2, dims.hidden // 2 + 1), half).reshape(-1).rows(1, dims.hidden + 1)
        inputs["inputs_embeds"] = inputs["inputs_embeds"].reshape(1, 1, dims.hidden)
    with pytest.raises(kinds.get(wrong, ValueError)):
        runner.session.bind(inputs, outputs)


def test_out_of_memory_frees_what_is_spare_then_says_what_to_do(gar: Gar, fake_gpu: FakeGpu) -> None:
    cuda, byte, mebibyte = fake_gpu.cuda, np.dtype(np.uint8), 1 << 20
    cuda.capacity = cuda.used + 8 * mebibyte
    del_me = gar.backend.empty((6 * mebibyte,), byte)
    del del_me
    gar.backend.empty((8 * mebibyte,), byte)  # fits only where the spare 6 are
    with pytest.raises(GarBackendError, match=r"out of GPU memory for a buffer of 16 MiB.*gar-engine build --capacity"):
        gar.backend.empty((16 * mebibyte,), byte)


def test_buffers_are_arrays_of_their_dtype(gar: Gar) -> None:
    values = np.arange(24, dtype=np.float64).reshape(4, 6)
    buffer = gar.backend.zeros((4, 6), np.dtype(np.float16))
    assert not buffer.read().any()
    buffer.write(values)
    values[:] = -1  # what was queued is what was written
    np.testing.assert_array_equal(buffer.read(), np.arange(24, dtype=np.float16).reshape(4, 6))
    np.testing.assert_array_equal(buffer.rows(1, 3).reshape(3, -1).read(), np.arange(6, 18).reshape(3, 4))
    other = gar.backend.empty((2, 6), np.dtype(np.float16))
    other.copy_from(buffer.rows(2, 4))
    buffer.rows(2, 4).clear()
    np.testing.assert_array_equal(other.read(), np.arange(12, 24).reshape(2, 6))
    assert not buffer.rows(2, 4).read().any()
    with pytest.raises(IndexError, match="rows 3 to 5 of 4"):
        buffer.rows(3, 5)
    with pytest.raises(ValueError, match="cannot be seen as"):
        buffer.reshape(5, 5)
    with pytest.raises(ValueError, match=r"shape \(6, 4\) for a buffer of shape \(4, 6\)"):
        buffer.write(values.T)
    with pytest.raises(ValueError, match="for a buffer of"):
        other.copy_from(buffer)


def test_the_older_cuda_python_serves_too(
    half_nano: Path, fake_gpu: FakeGpu, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.cudart", fake_gpu.cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    gar = Gar.load(half_nano, backend="tensorrt")
    assert gar.open(image).describe(np.ones(image.shape[:2], bool), options=Options(max_new_tokens=1)).tokens


def test_rtx_answers_alike_and_captures_by_itself(
    half_nano: Path,
    fake_gpu: FakeGpu,
    image: np.ndarray,
    masks: dict[int, np.ndarray],
    expected: list[Answer],
) -> None:
    gar = Gar.load(half_nano, backend="tensorrt_rtx")
    assert gar.backend.name == "tensorrt_rtx"
    assert [answer.tokens for answer in answers(gar, image, masks)] == [answer.tokens for answer in expected]
    assert (fake_gpu.cuda.calls["instantiate"], fake_gpu.cuda.calls["launch"]) == (0, 0)
    decoder = fake_gpu.rtx.engines[-1]
    assert {context.strategy.name for context in decoder.contexts} == {"DISABLED", "WHOLE_GRAPH_CAPTURE"}


def test_auto_prefers_the_regular_one_and_takes_rtx_after_it(
    half_nano: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Gar.load(half_nano).backend.name == "tensorrt"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert Gar.load(half_nano).backend.name == "tensorrt_rtx"


def test_the_real_libraries_have_what_the_fakes_have(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name that the back end may use, in the modules that can be installed without a GPU."""
    monkeypatch.undo()
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    config, engine, context = rtx.IBuilderConfig, rtx.ICudaEngine, rtx.IExecutionContext
    used = {
        rtx: "Builder OnnxParser Runtime ILogger IProgressMonitor TensorLocation MemoryPoolType ComputeCapability "
        "CudaGraphStrategy NetworkDefinitionCreationFlag get_plugin_registry __version__",
        rtx.Builder: "create_network create_builder_config create_optimization_profile build_serialized_network",
        rtx.OnnxParser: "parse num_errors get_error",
        rtx.ParserError: "desc",
        rtx.INetworkDefinition: "num_inputs get_input",
        rtx.ITensor: "name shape is_shape_tensor",
        rtx.IOptimizationProfile: "set_shape set_shape_input",
        config: "add_optimization_profile set_memory_pool_limit progress_monitor create_timing_cache set_timing_cache "
        "get_timing_cache num_compute_capabilities set_compute_capability",
        rtx.Runtime: "deserialize_cuda_engine",
        engine: "get_tensor_location create_execution_context create_runtime_config",
        rtx.IRuntimeConfig: "cuda_graph_strategy",
        context: "set_optimization_profile_async set_input_shape set_tensor_address execute_async_v3",
        rtx.IPluginRegistry: "get_creator load_library",
    }
    for owner, names in used.items():
        assert not [name for name in names.split() if not hasattr(owner, name)]


def test_the_real_cuda_python_has_what_the_fake_has(fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    faked = [name for name in dir(type(fake_gpu.cuda)) if name.startswith("cuda")]
    assert len(faked) > 20
    assert not [name for name in faked if not hasattr(runtime, name)]
    for kind in ("cudaMemcpyKind", "cudaStreamCaptureMode", "cudaDeviceAttr"):
        assert {entry.name: entry.value for entry in getattr(fake_gpu.cuda, kind)}.items() <= {
            entry.name: entry.value for entry in getattr(runtime, kind)
        }.items()
    status, _ = runtime.cudaGetDeviceCount()
    assert int(status) == status.value
    assert isinstance(runtime.cudaGetErrorString(status)[1], bytes)
