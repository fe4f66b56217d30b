"""Both forms of the decoder against transformers' Llama, in torch and in the exported graphs."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from helpers import reference
from helpers.shapes import SHAPES

from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.llama import AppendingDecoder, Decoder, causal_mask
from gar_edge.models.weights import build_module, decoder_recipes, load_parameters
from gar_edge.runtime import GarBackendError
from gar_edge.runtime.bundle.bundle import read_manifest
from gar_edge.runtime.engines.names import DecoderName
from gar_edge.runtime.engines.protocol import Buffer
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.model import in_place
from gar_edge.runtime.model.sequence import Prediction
from gar_edge.runtime.model.start import start_sequence

POSITIONS = 220


@pytest.fixture(scope="module")
def embeds(checkpoint: Checkpoint) -> np.ndarray:
    """[POSITIONS,C] of the size of token embeddings."""
    shape = (POSITIONS, checkpoint.config.text.hidden)
    return (np.random.default_rng(3).standard_normal(shape) * 0.5).astype(np.float32)


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint, embeds: np.ndarray) -> np.ndarray:
    """Transformers' logits [POSITIONS,V], teacher-forced."""
    model = reference.llama(checkpoint.weights.tensor, SHAPES[checkpoint.name].config(), checkpoint.tied)
    with torch.inference_mode():
        return model(inputs_embeds=torch.from_numpy(embeds)[None]).logits[0].numpy()


@contextmanager
def embedded(gar: Gar, rows: np.ndarray) -> Iterator[Buffer]:
    buffer = gar.pipeline.backend.empty(rows.shape, gar.pipeline.decoder.dtype)
    buffer.write(rows)
    yield buffer


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-3
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


def test_torch_decoder_step_by_step(checkpoint: Checkpoint, embeds: np.ndarray, expected: np.ndarray) -> None:
    text = checkpoint.config.text
    module = build_module(Decoder, text, torch.float32)
    load_parameters(module, decoder_recipes(checkpoint.config, checkpoint.tied), checkpoint.weights)
    caches = [torch.zeros(1, text.kv_heads, POSITIONS + 5, text.head_dim) for _ in range(2 * text.layers)]
    found = []
    with torch.inference_mode():
        for position, row in enumerate(torch.from_numpy(embeds)):
            index = torch.tensor([position])
            mask = causal_mask(index, 1, POSITIONS + 5)
            logits, tokens, *caches = module(row[None, None], index, mask, torch.zeros(1, dtype=torch.int64), caches)
            found.append(logits[0].numpy())
            assert tokens.tolist() == [expected[position].argmax()]
    assert_same(np.stack(found), expected)


def test_torch_appending_decoder_in_pieces(checkpoint: Checkpoint, embeds: np.ndarray, expected: np.ndarray) -> None:
    text = checkpoint.config.text
    module = build_module(AppendingDecoder, text, torch.float32)
    load_parameters(module, decoder_recipes(checkpoint.config, checkpoint.tied), checkpoint.weights)
    past = [torch.zeros(1, 0, text.kv_heads, text.head_dim) for _ in range(2 * text.layers)]
    found, ends = [], [1, 2, 50, 51, POSITIONS]
    with torch.inference_mode():
        for begin, end in pairwise([0, *ends]):
            position = torch.tensor([begin])
            mask = causal_mask(position, end - begin, end)
            every = torch.arange(end - begin)
            logits, _, *past = module(torch.from_numpy(embeds[None, begin:end]), position, mask, every, past)
            found.append(logits.numpy())
    assert_same(np.concatenate(found), expected)


@pytest.fixture(params=[one.value for one in DecoderName])
def gar(request: pytest.FixtureRequest, compat_bundle: Path) -> Gar:
    return Gar.load(compat_bundle, decoder=request.param)


def test_exported_decoder_step_by_step(gar: Gar, embeds: np.ndarray, expected: np.ndarray) -> None:
    sequence = start_sequence(gar.pipeline.decoder, POSITIONS)
    assert_same(np.stack([sequence.step(row[None]).logits()[0] for row in embeds]), expected)


@pytest.mark.parametrize("chunk", [1, 7, 64, POSITIONS])
def test_prefill_in_chunks_then_steps(gar: Gar, embeds: np.ndarray, expected: np.ndarray, chunk: int) -> None:
    sequence = start_sequence(gar.pipeline.decoder, POSITIONS)
    found, at = [], []
    for begin in range(0, 200, chunk):
        end = min(begin + chunk, 200)
        with embedded(gar, embeds[begin:end]) as rows:
            found.append(sequence.prefill(rows).logits()[0])
        at.append(end - 1)
    found += [sequence.step(row[None]).logits()[0] for row in embeds[200:]]
    at += range(200, POSITIONS)
    assert_same(np.stack(found), expected[at])


def test_rewind_forgets_what_came_later(gar: Gar, embeds: np.ndarray, expected: np.ndarray) -> None:
    """Twice, to a place inside the prefill and to one between steps; what was there must leave no trace."""
    sequence = start_sequence(gar.pipeline.decoder, POSITIONS)
    with embedded(gar, embeds[:30]) as rows:
        sequence.prefill(rows)
    for row in -embeds[:9]:
        sequence.step(row[None]).logits()[0]
    for begin in (12, 34):
        sequence.rewind(begin)
        with embedded(gar, embeds[begin : begin + 20]) as rows:
            found = [sequence.prefill(rows).logits()[0]]
        found += [sequence.step(row[None]).logits()[0] for row in embeds[begin + 20 : begin + 25]]
        assert_same(np.stack(found), expected[begin + 19 : begin + 25])
    sequence.rewind(0)
    assert_same(sequence.step(embeds[:1]).logits()[0], expected[0])


def test_a_batch_of_sequences_at_different_positions(
    bundle: Path, checkpoint: Checkpoint, embeds: np.ndarray, expected: np.ndarray
) -> None:
    """The graph takes several sequences, each with its own write index: chunks may end where their sequence ends."""
    gar, text = Gar.load(bundle), checkpoint.config.text
    lengths, chunk, capacity = (40, 57), 30, 64
    empty, zeros = gar.pipeline.backend.empty, gar.pipeline.backend.zeros
    shape = (2, text.kv_heads, capacity, text.head_dim)
    caches = {name: zeros(shape, gar.pipeline.decoder.dtype) for name in gar.pipeline.decoder.ports.aliases.values()}
    prediction = Prediction(gar.pipeline.decoder, 4)
    for starts in ([0, 0], [length - chunk for length in lengths]):
        rows = np.stack([embeds[start : start + chunk] for start in starts])
        slots = np.arange(capacity)
        mask = np.stack([slots <= start + np.arange(chunk)[:, None] for start in starts])[:, None]
        select = np.array([7, chunk - 1])
        feed = {"inputs_embeds": rows, "write_index": np.array(starts), "attention_mask": mask, "select": select}
        buffers = {}
        for name, value in feed.items():
            buffers[name] = empty(value.shape, value.dtype)
            buffers[name].write(value)
        outputs = {out: caches[source] for out, source in gar.pipeline.decoder.ports.aliases.items()}
        gar.pipeline.decoder.session.bind({**buffers, **caches}, {**prediction.buffers, **outputs})()
    wanted = expected[[start + at for start in starts for at in select]]  # one sequence after the other
    assert_same(prediction.logits(), wanted)
    assert prediction.tokens().tolist() == wanted.argmax(-1).tolist()


def test_the_last_layer_works_on_the_wanted_positions_alone(compat_bundle: Path) -> None:
    """All else that it would compute nobody reads: only its keys and values are those of every position."""
    manifest = read_manifest(compat_bundle)
    for decoder in (manifest.graphs["decoder"], manifest.for_engine("compat").graphs["decoder"]):
        graph = ir.load(compat_bundle / decoder.files[0]).graph
        rows = {str(node.inputs[1].name): str(node.inputs[0].shape[-2]) for node in graph if node.op_type == "MatMul"}
        last = f"layers.{manifest.dimensions.layers - 1}."
        narrow = {name for name, length in rows.items() if length == "selected"}
        assert narrow == {last + name + ".weight" for name in ("attn.o_proj", "gate_proj", "up_proj", "down_proj")}


def test_a_batch_of_pasts_of_different_lengths(
    compat_bundle: Path, checkpoint: Checkpoint, embeds: np.ndarray, expected: np.ndarray
) -> None:
    """The compat decoder pads the shorter past; mask and position say where each sequence truly is."""
    gar = Gar.load(compat_bundle, decoder="compat")
    session = onnxruntime.InferenceSession(compat_bundle / gar.pipeline.decoder.ports.files[0])
    appends, text = gar.pipeline.decoder.ports.appends, checkpoint.config.text
    lengths, count = (30, 47), 10
    longest = max(lengths)
    pasts = {name: np.full((2, longest, text.kv_heads, text.head_dim), 9.0, np.float32) for name in appends.values()}
    for number, length in enumerate(lengths):
        empty = {name: np.zeros((1, 0, text.kv_heads, text.head_dim), np.float32) for name in appends.values()}
        mask = np.tri(length, dtype=bool)[None, None]
        feed = {
            "inputs_embeds": embeds[None, :length],
            "position": np.zeros(1, np.int64),
            "attention_mask": mask,
            "select": np.array([length - 1]),
        }
        for output, present in zip(appends, session.run(list(appends), feed | empty), strict=True):
            pasts[appends[output]][number, :length] = present[0]
    held = np.arange(longest) < np.array(lengths)[:, None]  # [2,longest]
    mask = np.concatenate(
        [np.repeat(held[:, None], count, axis=1), np.repeat(np.tri(count, dtype=bool)[None], 2, axis=0)], axis=2
    )
    feed = {
        "inputs_embeds": np.stack([embeds[length : length + count] for length in lengths]),
        "position": np.array(lengths),
        "attention_mask": mask[:, None],
        "select": np.array([count - 1]),
    }
    (logits,) = session.run(["logits"], feed | pasts)
    assert_same(logits, expected[[length + count - 1 for length in lengths]])


def test_the_cache_is_updated_in_place(bundle: Path, embeds: np.ndarray) -> None:
    gar = Gar.load(bundle)
    sequence = start_sequence(gar.pipeline.decoder, 10)
    sequence.step(embeds[:1])
    caches = [cache.read() for cache in sequence.caches._buffers.values()]
    addresses = [cache.ctypes.data for cache in caches]
    sequence.step(embeds[1:2])
    assert [cache.read().ctypes.data for cache in sequence.caches._buffers.values()] == addresses
    for cache in caches:
        written = np.abs(cache).sum(axis=(0, 1, 3)) > 0
        assert written.tolist() == [True, True] + [False] * (sequence.caches.slots - 2)


def test_a_cache_grows_with_its_use_and_keeps_what_it_holds(
    bundle: Path, embeds: np.ndarray, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention covers all slots, so there are never many more than positions."""
    monkeypatch.setattr(in_place, "STEPS_AHEAD", 10)
    gar = Gar.load(bundle)
    sequence, slots = start_sequence(gar.pipeline.decoder, POSITIONS), []
    assert isinstance(sequence, in_place.InPlaceSequence)
    found = []
    for begin, end in pairwise([0, 50, 130, *range(131, 205)]):
        with embedded(gar, embeds[begin:end]) as rows:
            made = sequence.step(embeds[begin:end]) if end == begin + 1 else sequence.prefill(rows)
            found.append(made.logits()[0])
        slots.append(sequence.caches.slots)
    assert slots[:2] == [64, 192]
    assert slots[-1] == 256
    assert_same(np.stack(found), expected[[49, 129, *range(130, 204)]])
    sequence.restart()
    assert sequence.caches.slots == 0
    assert_same(sequence.step(embeds[:1]).logits()[0], expected[0])


def test_a_sequence_may_fill_the_context_and_no_more(tiny_bundle: Path) -> None:
    gar = Gar.load(tiny_bundle)
    context = gar.pipeline.decoder.dims.context
    sequence = start_sequence(gar.pipeline.decoder, 1)
    assert sequence.capacity == context
    rows = np.random.default_rng(0).standard_normal((context, gar.pipeline.decoder.dims.hidden)).astype(np.float32)
    with embedded(gar, rows[:-1]) as begin:
        sequence.prefill(begin)
    sequence.step(rows[-1:])
    with pytest.raises(GarBackendError, match=f"the cache holds {context} positions"):
        sequence.step(rows[:1])
