"""A sequence between two sets of buffers, over a fake decoder that enforces the graph's contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gar_edge.runtime.bundle.bundle import read_manifest
from gar_edge.runtime.bundle.manifest import Dimensions, Graph, Manifest, Port
from gar_edge.runtime.engines.onnxruntime.processor import HostBuffer
from gar_edge.runtime.engines.protocol import Array, Buffer, Run
from gar_edge.runtime.errors import GarBackendError
from gar_edge.runtime.model.appending import AppendingSequence
from gar_edge.runtime.model.decoder import DecoderGraph
from gar_edge.runtime.model.in_place import InPlaceSequence
from gar_edge.runtime.model.sequence import TokenSequence
from gar_edge.runtime.model.start import start_sequence

DIMS = Dimensions(tile_tokens=4, hidden=3, vocab=2, layers=1, kv_heads=2, head_dim=3, context=128)
APPENDS = {"present_key_0": "past_key_0", "present_value_0": "past_value_0"}


class FakeEngine:
    """A decoder whose key of a position is its embedding in each head, and whose value is ten times its position.

    Logits: the sum of all keys that a selected query may see, and the largest of their positions.
    """

    name = "fake"
    prefill_chunk = 512

    def __init__(self) -> None:
        self.allocated: list[tuple[int, ...]] = []
        self.fail = False

    def session(self, graph: str) -> FakeEngine:
        assert graph == "decoder"
        return self

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> HostBuffer:
        self.allocated.append(shape)
        return HostBuffer(np.full(shape, 7, dtype))  # unlike anything that is written

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype) -> HostBuffer:
        self.allocated.append(shape)
        return HostBuffer(np.zeros(shape, dtype))

    def limit(self, name: str, axis: int) -> None:
        """Every size runs."""

    def bind(self, inputs: Mapping[str, Buffer | Array], outputs: Mapping[str, Buffer]) -> Run:
        assert inputs.keys() == {"inputs_embeds", "position", "attention_mask", "select", *APPENDS.values()}
        assert outputs.keys() == {"logits", "tokens", *APPENDS}
        given = {name: one if isinstance(one, np.ndarray) else one.read() for name, one in inputs.items()}
        made = {name: buffer.read() for name, buffer in outputs.items()}
        assert all(array.flags.c_contiguous for array in [*given.values(), *made.values()])
        for out in made.values():
            assert not any(np.shares_memory(out, array) for array in given.values())
        return lambda: self._run(given, made)

    def _run(self, given: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> None:
        embeds, mask = given["inputs_embeds"][0], given["attention_mask"]
        count, past = len(embeds), given["past_key_0"].shape[1]
        total = past + count
        assert mask.shape == (1, 1, count, total)
        assert mask.dtype == np.bool_
        assert given["position"].tolist() == [past]
        np.testing.assert_array_equal(mask[0, 0], np.tri(count, total, past, dtype=bool))
        for name, source in APPENDS.items():
            assert made[name].shape == (1, total, DIMS.kv_heads, DIMS.head_dim)
            assert given[source].shape == (1, past, DIMS.kv_heads, DIMS.head_dim)
            made[name][:, :past] = given[source]
        made["present_key_0"][0, past:] = embeds[:, None]
        made["present_value_0"][0, past:] = 10 * np.arange(past, total)[:, None, None]
        if self.fail:
            raise RuntimeError("engine on fire")
        for row, at in enumerate(given["select"]):
            keys, values = (made[name][0, : past + at + 1] for name in APPENDS)
            made["logits"][row] = keys[:, 0].sum(), values.max() / 10
            made["tokens"][row] = made["logits"][row].argmax()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def start(engine: FakeEngine, tiny_bundle: Path) -> Callable[[int], TokenSequence]:
    ports = (Port("inputs_embeds", "float32", ()),), (Port("logits", "float32", ()),)
    graph = Graph(("decoder.onnx",), *ports, appends=APPENDS)
    manifest: Manifest = replace(read_manifest(tiny_bundle), dimensions=DIMS, graphs={"decoder": graph})
    return partial(start_sequence, DecoderGraph(engine, manifest))


def rows(*values: float) -> HostBuffer:
    return HostBuffer(np.repeat(np.array(values, np.float32)[:, None], DIMS.hidden, axis=1))


def test_the_signature_chooses_the_sequence(
    start: Callable[[int], TokenSequence], tiny_bundle: Path, engine: FakeEngine
) -> None:
    assert isinstance(start(1), AppendingSequence)
    assert isinstance(start_sequence(DecoderGraph(engine, read_manifest(tiny_bundle)), 1), InPlaceSequence)


def test_every_run_sees_what_the_last_one_made(start: Callable[[int], TokenSequence]) -> None:
    sequence = start(20)
    assert (sequence.length, sequence.capacity) == (0, 64)
    np.testing.assert_array_equal(sequence.prefill(rows(1, 2, 3)).logits()[0], [18, 2])  # three times 1 + 2 + 3
    np.testing.assert_array_equal(sequence.step(np.full((1, 3), 4.0)).logits()[0], [30, 3])
    np.testing.assert_array_equal(sequence.prefill(rows(5, 6)).logits()[0], [63, 5])
    assert sequence.length == 6


def test_a_rewound_sequence_goes_on_from_there(start: Callable[[int], TokenSequence]) -> None:
    sequence = start(20)
    sequence.prefill(rows(1, 2, 3, 4))
    sequence.step(np.full((1, 3), 5.0))
    sequence.rewind(2)
    assert sequence.length == 2
    np.testing.assert_array_equal(sequence.step(np.full((1, 3), 7.0)).logits()[0], [30, 2])
    sequence.restart()
    np.testing.assert_array_equal(sequence.prefill(rows(9)).logits()[0], [27, 0])


def test_a_sequence_can_be_filled_to_its_capacity(start: Callable[[int], TokenSequence]) -> None:
    sequence = start(64)
    sequence.prefill(rows(*[1.0] * 63))
    np.testing.assert_array_equal(sequence.step(np.ones((1, 3))).logits()[0], [192, 63])
    assert sequence.length == sequence.capacity == 64
    for more in (lambda: sequence.step(np.ones((1, 3))), lambda: sequence.prefill(rows(1))):
        with pytest.raises(GarBackendError, match="the cache holds 64 positions, 65 were asked of it"):
            more()
    assert sequence.length == 64


def test_two_sets_of_caches_are_allocated_once(start: Callable[[int], TokenSequence], engine: FakeEngine) -> None:
    sequence = start(20)
    cache = (64, DIMS.kv_heads, DIMS.head_dim)
    assert engine.allocated.count(cache) == 2 * len(APPENDS)
    engine.allocated.clear()
    sequence.prefill(rows(1, 2))
    for _ in range(5):
        sequence.step(np.ones((1, 3)))
    assert not engine.allocated


def test_a_run_that_fails_leaves_the_sequence_as_it_was(
    start: Callable[[int], TokenSequence], engine: FakeEngine
) -> None:
    sequence = start(20)
    sequence.prefill(rows(1, 2))
    engine.fail = True
    for _ in range(2):
        with pytest.raises(RuntimeError, match="on fire"):
            sequence.step(np.full((1, 3), 50.0))
    engine.fail = False
    assert sequence.length == 2
    np.testing.assert_array_equal(sequence.step(np.full((1, 3), 3.0)).logits()[0], [18, 2])


def test_several_tokens_in_one_step_predict_behind_each(start: Callable[[int], TokenSequence]) -> None:
    sequence = start(20)
    sequence.prefill(rows(1, 2))
    found = sequence.step(np.repeat([[3.0], [4.0], [5.0]], 3, axis=1))
    np.testing.assert_array_equal(found.logits(), [[18, 2], [30, 3], [45, 4]])
    np.testing.assert_array_equal(found.tokens(), [0, 0, 0])
    sequence.rewind(3)
    np.testing.assert_array_equal(sequence.step(np.full((1, 3), 1.0)).logits(), [[21, 3]])
