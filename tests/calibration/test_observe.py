"""The float model as calibration walks it, against the modules run whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.calibrating import TWO, observed, pictures, preparation, walked
from helpers.reference import roi_align
from torch import Tensor

from gar_edge.calibration.observe import Observer
from gar_edge.calibration.prepare import Prepared
from gar_edge.calibration.sites import HEAD, encoder_sites
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.layers import Linear
from gar_edge.models.llama import Decoder, causal_mask
from gar_edge.models.vision import Encoder
from gar_edge.models.weights import (
    TOKEN_TABLE,
    build_module,
    decoder_recipes,
    encoder_recipes,
    load_parameters,
)


@pytest.fixture(scope="module")
def prepared(checkpoint: Checkpoint) -> list[Prepared]:
    skipped: list[str] = []
    samples = list(preparation(checkpoint).prepare(pictures(), skipped))
    assert not skipped
    assert [sample.name for sample in samples] == list(TWO)
    assert [sample.replay_tokens for sample in samples] == [
        tuple(checkpoint.config.replay_tokens[number] for number in numbers) for numbers in ((0, 4), (1,))
    ]
    return samples


def truth(checkpoint: Checkpoint) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Encoder and decoder as `load_parameters` fills them."""
    encoder = build_module(Encoder, checkpoint.config, torch.float32)
    load_parameters(encoder, encoder_recipes(checkpoint.config), checkpoint.weights)
    decoder = build_module(Decoder, checkpoint.config.text, torch.float32)
    load_parameters(decoder, decoder_recipes(checkpoint.config, checkpoint.tied), checkpoint.weights)
    return encoder, decoder


def forward(checkpoint: Checkpoint, decoder: torch.nn.Module, embeds: Tensor) -> Tensor:
    """Logits [V] after a whole sequence [S,C] at once, of which every layer computes every position."""
    text, index = checkpoint.config.text, torch.tensor([0])
    caches = [torch.zeros(1, text.kv_heads, len(embeds), text.head_dim) for _ in range(2 * text.layers)]
    with torch.inference_mode():
        every = torch.arange(len(embeds))
        return decoder(embeds[None], index, causal_mask(index, len(embeds), len(embeds)), every, caches)[0][-1]


def test_features_are_the_encoders_and_embeddings_the_prompts(
    checkpoint: Checkpoint, prepared: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, _ = truth(checkpoint)
    table, config = checkpoint.weights.tensor(TOKEN_TABLE), checkpoint.config
    monkeypatch.setattr("gar_edge.calibration.observe.ACTIVATIONS", 1)  # a tile at a time
    _, spoken = observed(checkpoint, prepared, 2)
    for sample, one in zip(prepared, spoken, strict=True):
        assert one.prepared is sample
        pixels = torch.from_numpy(sample.pixels).float() / 127.5 - 1
        with torch.inference_mode():
            features = encoder(pixels, torch.from_numpy(sample.mask[:, None].astype(np.float32)))
        torch.testing.assert_close(one.features, features, rtol=1e-4, atol=1e-5)

        ids, special = sample.ids, {config.image_token, *sample.replay_tokens}
        text = ~np.isin(ids, list(special))
        assert torch.equal(one.embeds[text], table[ids[text]])
        assert torch.equal(one.embeds[ids == config.image_token], one.features.flatten(0, 1))
        boxes = np.array(sample.boxes, np.float32)
        regions = roi_align(one.features.numpy(), sample.grid, boxes, config.replay_spatial_scale)
        for token, region in zip(sample.replay_tokens, regions, strict=True):
            np.testing.assert_allclose(one.embeds[ids == token].numpy(), region, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("resident", [True, False])
def test_the_walk_says_what_the_decoder_says(checkpoint: Checkpoint, prepared: list[Prepared], resident: bool) -> None:
    _, decoder = truth(checkpoint)
    table = checkpoint.weights.tensor(TOKEN_TABLE)
    _, spoken = walked(checkpoint, prepared, 2, resident)
    for one in spoken:
        tokens = one.tokens
        assert len(one.logits) == len(tokens) + 1
        assert len(tokens) == (5 if resident else 0)  # random weights never end an answer this early
        embeds = torch.cat([one.embeds, table[tokens]])
        for position, logits in enumerate(one.logits):
            wanted = forward(checkpoint, decoder, embeds[: len(one.embeds) + position]).numpy()
            np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-5)
            if position < len(tokens):
                assert tokens[position] == logits.argmax()


def test_samples_side_by_side_are_as_each_alone(
    checkpoint: Checkpoint, prepared: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts of other lengths, one of which ends early: neither padding nor neighbours are heard or counted."""
    third = replace(prepared[0], name="a third", ids=prepared[0].ids[:-3])
    samples = [*prepared, third]
    assert len({len(sample.ids) for sample in samples}) > 1
    stop = (walked(checkpoint, samples, 3, True)[1][1].tokens[1], -1)
    checkpoint = replace(checkpoint, stop_tokens=stop)
    together, spoken = walked(checkpoint, samples, 2, True)
    monkeypatch.setattr("gar_edge.calibration.observe.CACHES", 1)
    alone, one_by_one = walked(checkpoint, samples, 2, True)
    monkeypatch.undo()
    monkeypatch.setattr("gar_edge.calibration.observe.ACTIVATIONS", 1)  # prompts one by one, answers together
    read_alone, mixed = walked(checkpoint, samples, 2, True)
    for ours, wanted, others in zip(spoken, one_by_one, mixed, strict=True):
        assert ours.tokens == wanted.tokens == others.tokens
        np.testing.assert_allclose(ours.logits, wanted.logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(others.logits, wanted.logits, rtol=1e-4, atol=1e-5)
    assert len({len(one.tokens) for one in spoken}) > 1
    for name, wanted_statistics in alone.statistics.items():
        for found in (together.statistics[name], read_alone.statistics[name]):
            assert found.seen == wanted_statistics.seen
            torch.testing.assert_close(found.amax, wanted_statistics.amax, rtol=1e-4, atol=1e-6)
            moved = (found.counts - wanted_statistics.counts).abs().sum()  # a last bit may cross a bin's edge
            assert moved <= 1e-3 * wanted_statistics.counts.sum()


def test_many_samples_share_what_is_counted(checkpoint: Checkpoint) -> None:
    """Largest values are of all rows; of each sample fewer are counted the more there are."""
    sites = encoder_sites(checkpoint.config)
    x = torch.randn(1, 2000, sites[0].channels, generator=torch.Generator().manual_seed(0))
    counted = []
    for samples in (1, 8, 1 << 12, 1 << 20):
        observer = Observer(sites, samples)
        observer.look([("a picture", 1)])
        observer.see(sites[0].name, x)
        statistics = observer.statistics[sites[0].name]
        counted.append(int(statistics.counts[0].sum()))
        assert torch.equal(statistics.amax, x[0].abs().amax(0))
        assert statistics.seen == 2000
    assert counted == [500, 500, 8, 1]


def test_an_answer_ends_with_a_stop_token(checkpoint: Checkpoint, prepared: list[Prepared]) -> None:
    _, spoken = walked(checkpoint, prepared, 2, True)
    stops = (spoken[0].tokens[2], -1)
    _, stopped = walked(replace(checkpoint, stop_tokens=stops), prepared, 2, True)
    end = spoken[0].tokens.index(stops[0])
    assert stopped[0].tokens == spoken[0].tokens[:end]
    assert len(stopped[0].logits) == end + 1


@pytest.mark.parametrize("watched", [0, 1, 2])
def test_only_the_watched_are_observed(checkpoint: Checkpoint, prepared: list[Prepared], watched: int) -> None:
    config = checkpoint.config
    tiles = sum(len(sample.pixels) for sample in prepared[:watched])
    patches = config.vision.grid**2
    seen = {name: one.seen for name, one in observed(checkpoint, prepared, watched)[0].statistics.items()}
    rows = dict.fromkeys(seen, tiles * (patches + config.vision.class_token))
    assert seen == {**rows, "linear_1": tiles * patches, "linear_2": tiles * config.tile_tokens}

    for resident in (True, False):
        observer, spoken = walked(checkpoint, prepared, watched, resident)
        tokens = sum(len(one.tokens) for one in spoken[:watched])
        assert tokens == (5 * watched if resident else 0)
        prompt = sum(len(sample.ids) for sample in prepared[:watched])
        seen = {name: one.seen for name, one in observer.statistics.items()}
        # The answers' tokens too; the head sees what comes before each.
        assert seen == {**dict.fromkeys(seen, prompt + tokens), HEAD: tokens + watched}


def test_ranges_are_those_of_the_inputs(checkpoint: Checkpoint, prepared: list[Prepared]) -> None:
    """Of every linear, by hooks on modules run whole; of q, k, v and of gate, up one stands for all."""
    encoder, decoder = truth(checkpoint)
    peaks: dict[str, Tensor] = {}

    def note(name: str, x: Tensor) -> None:
        peak = x.detach().abs().flatten(0, -2).amax(dim=0)
        peaks[name] = torch.maximum(peaks.get(name, torch.zeros_like(peak)), peak)

    for module in (encoder, decoder):
        for name, linear in module.named_modules():
            if isinstance(linear, Linear):
                linear.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
    decoder.norm.register_forward_hook(lambda _, inputs, output: note(HEAD, output[:, -1:]))
    observer, spoken = walked(checkpoint, prepared, 2, True)
    table = checkpoint.weights.tensor(TOKEN_TABLE)
    for one in spoken:
        for length in range(len(one.tokens) + 1):
            forward(checkpoint, decoder, torch.cat([one.embeds, table[one.tokens[:length]]]))
        pixels = torch.from_numpy(one.prepared.pixels).float() / 127.5 - 1
        encoder(pixels, torch.from_numpy(one.prepared.mask[:, None].astype(np.float32)))
    assert {"layers.0.attn.k_proj", "layers.0.up_proj"} < peaks.keys()
    statistics = observed(checkpoint, prepared, 2)[0].statistics | observer.statistics
    for name, one in statistics.items():
        torch.testing.assert_close(one.amax, peaks[name], rtol=1e-3, atol=1e-5)
