"""Several answers side by side in TensorRT's engines, on the fake that enforces its rules."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from fakes.cuda import Violation
from fakes.gpu import FakeGpu
from helpers.engine_building import build, gar_engine
from helpers.schedules import Schedule, run_schedule
from PIL import Image

from gar_edge.runtime import Answer, Gar, GarBackendError, Options
from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.engines.tensorrt.plan import Limits, plan_of
from gar_edge.runtime.model.batch import SequenceBatch
from gar_edge.runtime.model.in_place import InPlaceSequence
from gar_edge.runtime.model.kv_caches import KvCaches
from gar_edge.runtime.model.sequence import Prediction, last
from gar_edge.runtime.model.start import start_sequence

EXAMPLES = Path(__file__).parents[3] / "examples"
OPTIONS = Options(max_new_tokens=12)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.asarray(Image.open(EXAMPLES / "scene_1.png").convert("RGB"))


@pytest.fixture(scope="module")
def masks() -> list[np.ndarray]:
    return [np.asarray(Image.open(EXAMPLES / f"scene_1_mask_{k}.png").convert("L")) > 0 for k in range(5)]


@pytest.fixture(scope="module")
def expected(half_nano: Path, image: np.ndarray, masks: list[np.ndarray]) -> list[list[int]]:
    """Each region alone, by ONNX Runtime from the same graphs."""
    with Gar.load(half_nano, backend="onnxruntime", threads=1) as gar:
        scene = gar.open(image)
        return [list(scene.describe(mask, options=OPTIONS).tokens) for mask in masks]


def tokens(answers: list[Answer]) -> list[list[int]]:
    return [list(answer.tokens) for answer in answers]


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_side_by_side_they_are_the_answers_of_each_alone(
    fake_gpu: FakeGpu,
    built_nano: Path,
    image: np.ndarray,
    masks: list[np.ndarray],
    expected: list[list[int]],
    backend: str,
) -> None:
    """Five regions in four places: joins and leaves, in fewer runs of the decoder than there are tokens."""
    gar = Gar.load(built_nano, backend=backend)
    assert gar.scheduler.places == 4
    scene = gar.open(image)
    alone = scene.describe(masks[0], options=OPTIONS)
    before = fake_gpu.cuda.calls["enqueue"] + fake_gpu.cuda.calls["launch"]
    assert tokens(scene.describe_all(masks, options=OPTIONS)) == expected
    runs = fake_gpu.cuda.calls["enqueue"] + fake_gpu.cuda.calls["launch"] - before
    assert runs < sum(len(one) for one in expected)
    assert list(alone.tokens) == expected[0]


def test_any_schedule_gives_the_answers_of_single_questions(fake_gpu: FakeGpu, built_nano: Path) -> None:
    """Joins, cancels, time limits, evictions and draws, with no rule of TensorRT's or CUDA's broken."""
    outcome = run_schedule(built_nano, Schedule(requests=30, threads=5, seed=4))
    assert outcome.wrong == []
    assert outcome.whole > 8
    assert max(context.profile_index for context in fake_gpu.tensorrt.engines[-1].contexts) == 2  # several at once


def test_a_step_of_several_is_captured_for_each_number_of_them(
    fake_gpu: FakeGpu, built_nano: Path, image: np.ndarray, masks: list[np.ndarray]
) -> None:
    gar = Gar.load(built_nano, backend="tensorrt")
    graph, calls = gar.pipeline.decoder, fake_gpu.cuda.calls
    batch = SequenceBatch(graph, 4)
    for length in (9, 17, 30):
        batch.join(prefilled(gar, length))
    embeds = np.zeros((3, graph.dims.hidden), graph.dtype)
    before = calls["instantiate"], calls["launch"]
    for _ in range(5):
        batch.step(embeds).tokens()
    assert (calls["instantiate"] - before[0], calls["launch"] - before[1]) == (1, 4)  # the first warms up
    batch.leave(1)
    for _ in range(3):
        batch.step(embeds[:2]).tokens()
    assert (calls["instantiate"] - before[0], calls["launch"] - before[1]) == (2, 6)
    assert batch.lengths == [17, 38]


def prefilled(gar: Gar, length: int) -> InPlaceSequence:
    """A sequence of random embeddings."""
    graph = gar.pipeline.decoder
    sequence = start_sequence(graph, length)
    assert isinstance(sequence, InPlaceSequence)
    buffer = gar.pipeline.backend.empty((length, graph.dims.hidden), graph.dtype)
    buffer.write(np.random.default_rng(length).normal(0, 0.5, buffer.shape).astype(graph.dtype))
    sequence.prefill(buffer)
    return sequence


@pytest.mark.usefixtures("fake_gpu")
def test_rows_predict_what_the_sequences_alone_do(built_nano: Path) -> None:
    """Also near the cache's end, where there is no room to reserve ahead."""
    gar = Gar.load(built_nano, backend="tensorrt")
    graph = gar.pipeline.decoder
    lengths = (5, 64, graph.longest - 3)
    batch, embeds = SequenceBatch(graph, 3), np.full((3, graph.dims.hidden), 0.25, graph.dtype)
    for length in lengths:
        batch.join(prefilled(gar, length))
    for _ in range(3):
        found = batch.step(embeds).logits()
    for row, length in enumerate(lengths):
        alone = prefilled(gar, length)
        for _ in range(3):
            wanted = alone.step(embeds[:1]).logits()
        np.testing.assert_allclose(found[row], wanted[0], atol=2e-2)
    with pytest.raises(GarBackendError, match=f"model and engine hold {graph.longest} positions"):
        batch.step(embeds)


def test_memory_is_given_back(fake_gpu: FakeGpu, built_nano: Path, image: np.ndarray, masks: list[np.ndarray]) -> None:
    gar = Gar.load(built_nano, backend="tensorrt")
    used = []
    for _ in range(3):
        gar.open(image).describe_all(masks, options=OPTIONS)
        gc.collect()
        used.append(fake_gpu.cuda.used)
    assert used[1] == used[2]
    del gar
    gc.collect()
    assert fake_gpu.cuda.used == 0


@pytest.mark.usefixtures("fake_gpu")
def test_an_engine_for_one_answers_in_turn(
    own_nano: Path, image: np.ndarray, masks: list[np.ndarray], expected: list[list[int]]
) -> None:
    build(own_nano, batch=1)
    gar = Gar.load(own_nano, backend="tensorrt")
    assert gar.scheduler.places == 1
    assert tokens(gar.open(image).describe_all(masks[:2], options=OPTIONS)) == expected[:2]
    assert Gar.load(own_nano, backend="tensorrt", batch=8).scheduler.places == 1


@pytest.mark.usefixtures("fake_gpu")
def test_fewer_places_than_the_engine_has_are_the_callers_choice(built_nano: Path) -> None:
    assert Gar.load(built_nano, backend="tensorrt", batch=2).scheduler.places == 2
    assert Gar.load(built_nano, backend="tensorrt", batch=9).scheduler.places == 4


@pytest.mark.parametrize("batch", [1, 2, 4, 64])
def test_the_plan(half_nano: Path, batch: int) -> None:
    manifest = Bundle.open(half_nano).manifest
    plan = plan_of("decoder", manifest, Limits.of(manifest, batch=batch), plugin=False)
    if batch == 1:
        assert (plan.fixed["batch"], len(plan.profiles)) == (1, 2)
        return
    assert "batch" not in plan.fixed
    assert [profile.dims["batch"] for profile in plan.profiles] == [(1, 1, 1), (1, 1, 1), (2, batch, batch)]
    assert plan.profiles[2].dims["length"] == (1, 1, 1)


@pytest.mark.parametrize("batch", [0, 65])
@pytest.mark.usefixtures("fake_gpu")
def test_no_batch_is_refused(own_nano: Path, capsys: pytest.CaptureFixture[str], batch: int) -> None:
    code, _, err = gar_engine(capsys, "build", own_nano, "--batch", str(batch))
    assert code == 2
    assert "batch" in err
    assert not (own_nano / "engines").exists()


@pytest.mark.usefixtures("fake_gpu")
def test_the_fake_sees_a_row_that_leaves_its_cache(built_nano: Path) -> None:
    """The rule itself: nothing on a GPU would say so."""
    graph = Gar.load(built_nano, backend="tensorrt").pipeline.decoder
    caches, prediction = KvCaches(graph, 2), Prediction(graph, 2)
    inputs = {
        "inputs_embeds": np.zeros((2, 1, graph.dims.hidden), graph.dtype),
        "write_index": np.array([7, graph.longest]),
        "attention_mask": np.ones((2, 1, 1, graph.longest), np.bool_),
        "select": last(1, 1),
    }
    run = caches.bind(inputs, prediction)
    run()
    with pytest.raises(Violation, match="leave the cache"):
        prediction.tokens()
