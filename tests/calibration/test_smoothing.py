"""Folding SmoothQuant's scales into the weights before: the float model must not change."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from helpers.calibrating import gaussian
from helpers.shapes import SHAPES
from torch import Tensor

from gar_edge.calibration.plan import Plan, Scheme, SitePlan
from gar_edge.calibration.sites import HEAD, Fold, Site, decoder_sites, encoder_sites
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.llama import Decoder, causal_mask
from gar_edge.models.standin import random_checkpoint_of
from gar_edge.models.vision import Encoder
from gar_edge.models.weights import (
    Recipe,
    WeightSource,
    build_module,
    decoder_recipes,
    encoder_recipes,
    load_parameters,
)


class Lively:
    """A checkpoint's tensors with nothing at rest: biases that are not 0, norms and LayerScales that are not 1."""

    def __init__(self, source: WeightSource) -> None:
        self._source = source

    def names(self) -> Iterable[str]:
        return self._source.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source.shape(name)

    def tensor(self, name: str) -> Tensor:
        seed = sum(name.encode())
        if self._source.tensor(name).std(correction=0) == 0:
            centre = 0.0 if name.endswith(".bias") else 1.0
            return centre + 0.3 * gaussian(*self.shape(name), seed=seed)
        return gaussian(*self.shape(name), seed=seed) * 0.1


def loaded(kind, config, recipes, source: WeightSource) -> torch.nn.Module:
    module = build_module(kind, config, torch.float32)
    load_parameters(module, recipes, source)
    return module


def smooth_everywhere(sites: Iterable[Site]) -> Plan:
    plans = {}
    for seed, site in enumerate(sites):
        smooth = None
        if site.fold is not None:
            smooth = site.fold.shared(gaussian(site.channels, seed=seed).mul(0.7).exp())
        plans[site.name] = SitePlan(site, Scheme.INT8, smooth=smooth)
    return Plan(plans)


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-4) -> bool:
    return bool((found - wanted).norm() <= tolerance * wanted.norm())


def changed(found: dict[str, Recipe], plain: dict[str, Recipe], source: WeightSource) -> set[str]:
    pairs = {name: (found[name].make(source, torch.float32), plain[name].make(source, torch.float32)) for name in plain}
    return {name for name, (a, b) in pairs.items() if not torch.equal(a, b)}


def test_smoothing_leaves_the_encoder_equal(checkpoint: Checkpoint) -> None:
    config, source = checkpoint.config, Lively(checkpoint.weights)
    recipes, sites = encoder_recipes(config), encoder_sites(config)
    side = config.vision.tile
    with torch.inference_mode():
        inputs = gaussian(2, 3, side, side), (gaussian(2, 1, side, side, seed=1) > 0.5).float()
        smoothed = smooth_everywhere(sites).smoothed(recipes)
        wanted = loaded(Encoder, config, recipes, source)(*inputs)
        assert close(loaded(Encoder, config, smoothed, source)(*inputs), wanted)
        # All that can be smoothed was: three linears of each block, and what stands before them.
        touched = changed(smoothed, recipes, source)
        names = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.qkv.weight", "attn.qkv.bias")
        names += ("attn.proj.weight", "fc1.weight")
        assert touched == {f"blocks.{i}.{name}" for i in range(config.vision.depth) for name in names}
        # Without its counterpart any of these changes would show.
        half = {**smoothed, "blocks.1.fc1.weight": recipes["blocks.1.fc1.weight"]}
        assert not close(loaded(Encoder, config, half, source)(*inputs), wanted, 1e-2)


def test_smoothing_leaves_the_decoder_equal(checkpoint: Checkpoint) -> None:
    config, source, text = checkpoint.config, Lively(checkpoint.weights), checkpoint.config.text
    recipes, sites = decoder_recipes(config, checkpoint.tied), decoder_sites(config, checkpoint.tied)
    assert text.heads > text.kv_heads  # grouped queries are what is difficult
    smoothed = smooth_everywhere(sites).smoothed(recipes)
    index = torch.tensor([0])
    caches = [torch.zeros(1, text.kv_heads, 12, text.head_dim) for _ in range(2 * text.layers)]
    with torch.inference_mode():
        inputs = (gaussian(1, 9, text.hidden), index, causal_mask(index, 9, 12), torch.tensor([8]), caches)
        wanted = loaded(Decoder, text, recipes, source)(*inputs)[0]
        assert close(loaded(Decoder, text, smoothed, source)(*inputs)[0], wanted)
        plain = changed(smoothed, recipes, source) ^ recipes.keys()
        assert plain == ({"norm.weight", "head"} if checkpoint.tied else set())
        half = {**smoothed, "layers.1.attn.o_proj.weight": recipes["layers.1.attn.o_proj.weight"]}
        assert not close(loaded(Decoder, text, half, source)(*inputs)[0], wanted, 1e-2)


def test_a_scale_behind_grouped_queries_is_shared() -> None:
    """Two key-value heads of two channels, each read by three query heads."""
    fold = Fold(("v",), groups=3, head_dim=2)
    scale = torch.tensor([1.0, 5, 2, 4, 3, 6, 9, 1, 8, 2, 7, 3])
    shared = fold.shared(scale)
    assert shared.tolist() == [3, 6, 3, 6, 3, 6, 9, 3, 9, 3, 9, 3]
    assert fold.upstream(shared).tolist() == [3, 6, 9, 3]
    assert torch.equal(fold.shared(shared), shared)
    plain = Fold(("norm",))
    assert torch.equal(plain.upstream(plain.shared(scale)), scale)


def test_a_tied_head_is_not_scaled() -> None:
    for name, preset in SHAPES.items():
        checkpoint = random_checkpoint_of(preset, name)
        head = decoder_sites(checkpoint.config, checkpoint.tied)[-1]
        assert (head.name, head.fold is None) == (HEAD, checkpoint.tied)
