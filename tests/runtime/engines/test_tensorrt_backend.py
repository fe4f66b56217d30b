"""The TensorRT back end on a fake that enforces TensorRT's and CUDA's rules: answers, and how they come about."""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.gpu import FakeGpu
from helpers.engine_building import build
from PIL import Image

from gar_edge.export.bundle_writer import ExportOptions, export_bundle
from gar_edge.export.graphs import Precision
from gar_edge.export.progress import Silent
from gar_edge.models.checkpoint import open_checkpoint, shipped_checkpoint
from gar_edge.models.sizes import Size
from gar_edge.runtime import Answer, Gar, GarBackendError, GarPromptError, Options
from gar_edge.runtime.engines.cuda import memory
from gar_edge.runtime.model.start import start_sequence

EXAMPLES = Path(__file__).parents[3] / "examples"
OPTIONS = Options(max_new_tokens=12)
QUESTION = "Is <Prompt0> larger or smaller than <Prompt1>?"

Masks = dict[int, np.ndarray]  # [H,W] bool by region number


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.asarray(Image.open(EXAMPLES / "scene_1.png").convert("RGB"))


@pytest.fixture(scope="module")
def masks() -> Masks:
    return {k: np.asarray(Image.open(EXAMPLES / f"scene_1_mask_{k}.png").convert("L")) > 0 for k in range(5)}


def answers(gar: Gar, image: np.ndarray, masks: Masks) -> list[Answer]:
    """Descriptions, questions about one to five regions, pictures of several grids, with and without reuse."""
    scene, pair = gar.open(image), {0: masks[0], 1: masks[1]}
    found = [scene.describe(masks[0], options=OPTIONS), scene.ask(QUESTION, pair, options=OPTIONS)]
    found += [scene.ask(QUESTION, pair, options=OPTIONS), scene.describe(masks[3], options=OPTIONS)]
    five = "Which of <Prompt0>, <Prompt1>, <Prompt2>, <Prompt3> and <Prompt4> is red?"
    found.append(scene.ask(five, masks, options=OPTIONS))
    for columns, rows in ((4, 1), (1, 4), (1, 1)):
        shape = (112 * rows, 112 * columns)
        region = np.zeros(shape, bool)
        region[20:90, 30:100] = True
        squeezed = np.asarray(Image.fromarray(image).resize(shape[::-1]))
        found.append(gar.open(squeezed).describe(region, options=OPTIONS))
    assert {answer.grid for answer in found} >= {(2, 2), (4, 1), (1, 4)}
    return found


@pytest.fixture(scope="module")
def expected(built_nano: Path, image: np.ndarray, masks: Masks) -> list[Answer]:
    """ONNX Runtime's answers from the same graphs."""
    return answers(Gar.load(built_nano, backend="onnxruntime"), image, masks)


@pytest.fixture
def gar(fake_gpu: FakeGpu, built_nano: Path) -> Gar:
    return Gar.load(built_nano, backend="tensorrt")


def test_answers_are_onnx_runtimes_token_for_token(
    gar: Gar, image: np.ndarray, masks: Masks, expected: list[Answer]
) -> None:
    found = answers(gar, image, masks)
    assert gar.pipeline.backend.name == "tensorrt"
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
    fake_gpu: FakeGpu, compat_nano: Path, image: np.ndarray, masks: Masks
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
        start_sequence(gar.pipeline.decoder, gar.pipeline.decoder.longest + 1)


def test_one_wait_per_token_and_none_before_the_first(
    gar: Gar, fake_gpu: FakeGpu, image: np.ndarray, masks: Masks
) -> None:
    """Encoder, replay and prefill are chained; only reading logits waits."""
    scene = gar.open(image)
    before = fake_gpu.cuda.calls["synchronise"]
    answer = scene.describe(masks[0], options=Options(max_new_tokens=6))
    assert fake_gpu.cuda.calls["synchronise"] - before == len(answer.tokens)


def test_decode_is_captured_once_and_launched_after(
    built_nano: Path, gar: Gar, fake_gpu: FakeGpu, image: np.ndarray, masks: Masks
) -> None:
    room = gar.pipeline.decoder.cache_bytes(gar.pipeline.decoder.longest)
    gar = Gar.load(built_nano, backend="tensorrt", cache_bytes=room)
    scene, calls = gar.open(image), fake_gpu.cuda.calls
    steps = len(scene.describe(masks[0], options=OPTIONS).tokens) - 1
    assert steps > 3
    assert (calls["instantiate"], calls["launch"]) == (1, steps - 1)  # the first step warms up
    other = len(scene.describe(masks[1], options=OPTIONS).tokens) - 1
    assert (calls["instantiate"], calls["launch"]) == (1, steps - 1 + other)  # the sequence's memory is used again


def test_memory_is_bounded_over_many_questions(gar: Gar, fake_gpu: FakeGpu, image: np.ndarray, masks: Masks) -> None:
    used = []
    for _ in range(4):
        answers(gar, image, masks)
        gc.collect()
        used.append(fake_gpu.cuda.used)
    assert used[1] == used[2] == used[3]


def test_everything_is_freed_with_the_model(built_nano: Path, fake_gpu: FakeGpu, image: np.ndarray) -> None:
    gar = Gar.load(built_nano, backend="tensorrt")
    gar.open(image).describe(np.ones(image.shape[:2], bool), options=OPTIONS)
    assert fake_gpu.cuda.used > 0
    del gar
    gc.collect()
    assert fake_gpu.cuda.used == 0
    assert all(allocation.freed for allocation in fake_gpu.cuda.memory.allocations)
    assert all(stream.destroyed for stream in fake_gpu.cuda.streams.values())


def test_a_small_staging_budget_only_waits_more(
    gar: Gar, image: np.ndarray, masks: Masks, expected: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "STAGING", 1 << 12)
    assert gar.open(image).describe(masks[0], options=OPTIONS).tokens == expected[0].tokens


@pytest.mark.usefixtures("fake_gpu")
def test_prefill_in_chunks(
    own_nano: Path, image: np.ndarray, masks: Masks, expected: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gar_edge.runtime.engines.tensorrt.plan.PREFILL_CHUNK", 64)
    gar = Gar.load(own_nano, backend="tensorrt")
    assert gar.pipeline.decoder.chunk == 64
    assert gar.open(image).describe(masks[0], options=OPTIONS).tokens == expected[0].tokens


def test_threads_share_the_engines(gar: Gar, image: np.ndarray, masks: Masks, expected: list[Answer]) -> None:
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
    gar: Gar, image: np.ndarray, masks: Masks, expected: list[Answer]
) -> None:
    scene = gar.open(image)
    streams = [scene.stream(None, {1: masks[0]}, options=OPTIONS), scene.stream(None, {1: masks[3]}, options=OPTIONS)]
    texts = [iter(stream) for stream in streams]
    for _ in range(20):
        for text in texts:
            next(text, None)
    assert [stream.finish().tokens for stream in streams] == [expected[0].tokens, expected[3].tokens]


def test_a_decode_that_cannot_be_captured_runs_all_the_same(
    gar: Gar,
    fake_gpu: FakeGpu,
    image: np.ndarray,
    masks: Masks,
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
    prompt = gar.open(image, max_tiles=1).describe(whole, options=Options(max_new_tokens=1)).prompt_tokens
    capacity = -(-(prompt + 2) // 64) * 64
    build(own_nano, rebuild=True, capacity=capacity)
    gar = Gar.load(own_nano, backend="tensorrt")
    assert gar.pipeline.decoder.longest == capacity
    question = "<Prompt0>" + "x" * 30
    answer = gar.open(image, max_tiles=1).ask(question, {0: whole}, options=Options(max_new_tokens=1000))
    assert answer.prompt_tokens + len(answer.tokens) <= capacity
    with pytest.raises(GarPromptError, match=f"the engine holds {capacity}.*gar-engine build --capacity 1024"):
        gar.open(image, max_tiles=1).ask("<Prompt0>" + " red" * 100, {0: whole})
    with pytest.raises(GarBackendError, match=f"the engine's cache holds {capacity}; gar-engine build --capacity 5000"):
        start_sequence(gar.pipeline.decoder, 5000)


def test_more_tiles_than_the_engines_were_built_for(own_nano: Path, fake_gpu: FakeGpu, image: np.ndarray) -> None:
    build(own_nano, rebuild=True, tiles=2)
    gar = Gar.load(own_nano, backend="tensorrt")
    assert len(gar.open(image).tiles.pixels) <= 3  # the bundle's own limit gives way
    with pytest.raises(GarPromptError, match=r"built for \(2\); gar-engine build --max-tiles 3"):
        gar.open(image, max_tiles=3)


def test_the_older_cuda_python_serves_too(
    built_nano: Path, fake_gpu: FakeGpu, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.cudart", fake_gpu.cuda)
    monkeypatch.setitem(sys.modules, "cuda.cuda", fake_gpu.driver)
    for name in ("cuda.bindings.runtime", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    gar = Gar.load(built_nano, backend="tensorrt")
    assert gar.open(image).describe(np.ones(image.shape[:2], bool), options=Options(max_new_tokens=1)).tokens


def test_rtx_answers_alike_and_captures_by_itself(
    built_nano: Path, fake_gpu: FakeGpu, image: np.ndarray, masks: Masks, expected: list[Answer]
) -> None:
    gar = Gar.load(built_nano, backend="tensorrt_rtx")
    assert gar.pipeline.backend.name == "tensorrt_rtx"
    assert [answer.tokens for answer in answers(gar, image, masks)] == [answer.tokens for answer in expected]
    assert (fake_gpu.cuda.calls["instantiate"], fake_gpu.cuda.calls["launch"]) == (0, 0)
    decoder = fake_gpu.rtx.engines[-1]
    assert {context.strategy.name for context in decoder.contexts} == {"DISABLED", "WHOLE_GRAPH_CAPTURE"}


def test_all_contexts_work_in_one_block_that_the_largest_needs(
    gar: Gar, fake_gpu: FakeGpu, image: np.ndarray, masks: Masks
) -> None:
    answers(gar, image, masks)
    engines = fake_gpu.tensorrt.engines
    contexts = [context for engine in engines for context in engine.contexts]
    assert len(contexts) > len(engines)
    assert {context.scratch for context in contexts} == {contexts[0].scratch}
    assert contexts[0].scratch is not None
    assert contexts[0].scratch[1] == max(engine.device_memory_size_v2 for engine in engines)


def test_auto_prefers_the_regular_one_and_takes_rtx_after_it(
    built_nano: Path, fake_gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Gar.load(built_nano).pipeline.backend.name == "tensorrt"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert Gar.load(built_nano).pipeline.backend.name == "tensorrt_rtx"
