"""The float model over calibration samples, one layer in memory at a time where it must, watched at every site."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gar_edge.calibration.histogram import ChannelHistogram
from gar_edge.calibration.prepare import Prepared
from gar_edge.calibration.sites import HEAD, Site
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.llama import Decoder, causal_mask
from gar_edge.models.replay import replay
from gar_edge.models.vision import ByteEncoder
from gar_edge.models.weights import (
    TOKEN_TABLE,
    Recipe,
    WeightSource,
    build_module,
    decoder_recipes,
    encoder_recipes,
)  # fmt: skip
from gar_edge.runtime.errors import GarCalibrationError

SCORES = 1 << 28  # bytes of attention scores at once

Report = Callable[[], None]


class Observer:
    """Statistics of every site's input. `sample` is whose activations come next; None: do not look."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.statistics = {site.name: ChannelHistogram(site.channels) for site in sites}
        self.sample: str | None = None

    @contextmanager
    def watching(self, module: nn.Module, prefix: str = "") -> Iterator[None]:
        """Observe the inputs of the linears inside `module` that are sites' first."""
        hooks = []
        for name, linear in module.named_modules():
            site = prefix + name
            if site in self.statistics:

                def observe(_: nn.Module, inputs: tuple[Tensor, ...], site: str = site) -> None:
                    self.see(site, inputs[0])

                hooks.append(linear.register_forward_pre_hook(observe))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def see(self, site: str, x: Tensor) -> None:
        """Take in activations [..., C]."""
        if self.sample is not None:
            self.statistics[site].observe(x.flatten(0, -2), site, self.sample)


@dataclass
class Spoken:
    """What the float model says about one sample.

    features [T,P,C] and prompt embeddings [S,C] float32; tokens: its greedy answer; logits [len(tokens) + 1, V]: what
    it expects after the prompt and after each token (empty where the decoder did not fit into memory).
    """

    prepared: Prepared
    features: Tensor
    embeds: Tensor
    tokens: list[int] = field(default_factory=list)
    logits: list[NDArray[np.float32]] = field(default_factory=list)


def encode(
    checkpoint: Checkpoint,
    samples: Sequence[Prepared],
    observer: Observer,
    watched: int,
    done: Report,
) -> list[Spoken]:
    """Features and prompt embeddings of every sample; the first `watched` are observed. Blocks are loaded in turn."""
    config, source = checkpoint.config, checkpoint.weights
    recipes = encoder_recipes(config)
    module = build_module(lambda config: ByteEncoder(config, checkpoint.preprocessing), config, torch.float32)
    at_once = max(1, SCORES // (config.vision.heads * (config.vision.grid**2 + 1) ** 2 * 4))
    states: list[Tensor] = []
    with _loaded(module, recipes, source, skip="blocks."):
        for sample in samples:
            states.append(module.stem(torch.from_numpy(sample.pixels), torch.from_numpy(sample.mask[:, None])))
    for index, block in enumerate(module.blocks):
        prefix = f"blocks.{index}."
        with _loaded(block, recipes, source, prefix), observer.watching(block, prefix):
            for number, sample in enumerate(samples):
                observer.sample = sample.name if number < watched else None
                pieces = states[number].split(at_once)
                states[number] = torch.cat([block(piece, module.cos, module.sin) for piece in pieces])
        done()
    spoken = []
    table = source.tensor(TOKEN_TABLE)
    with _loaded(module, recipes, source, skip="blocks."), observer.watching(module):
        for number, sample in enumerate(samples):
            observer.sample = sample.name if number < watched else None
            features = module.projector(states[number])
            spoken.append(Spoken(sample, features, _embed(checkpoint, sample, features, table)))
    return spoken


def _embed(checkpoint: Checkpoint, sample: Prepared, features: Tensor, table: Tensor) -> Tensor:
    """Prompt embeddings [S,C]: table rows, tile features and replayed regions in their places."""
    config = checkpoint.config
    ids = torch.from_numpy(sample.ids)
    embeds = table[ids].float()
    embeds[ids == config.image_token] = features.flatten(0, 1)
    regions = replay(features, sample.grid, torch.tensor(sample.boxes), config.replay_spatial_scale)
    for token, region in zip(sample.replay_tokens, regions, strict=True):
        embeds[ids == token] = region
    return embeds


class DecoderWalk:
    """The float decoder over prompts and its own greedy answers.

    resident: keep all layers in memory, which answers need; otherwise layers come and go and only prompts are read.
    answer_tokens: most tokens of an answer.
    """

    def __init__(self, checkpoint: Checkpoint, observer: Observer, resident: bool, answer_tokens: int) -> None:
        self._checkpoint, self._observer = checkpoint, observer
        self._resident, self._answer_tokens = resident, answer_tokens
        self._module = build_module(Decoder, checkpoint.config.text, torch.float32)
        self._recipes = decoder_recipes(checkpoint.config, checkpoint.tied)

    def run(self, spoken: Sequence[Spoken], watched: int, done: Report) -> None:
        """Fill in every sample's answer and logits; the first `watched` are observed."""
        module, source = self._module, self._checkpoint.weights
        if not self._resident:
            self._walk_by_layer(spoken, watched, done)
            return
        with _loaded(module, self._recipes, source), self._observer.watching(module):
            for number, one in enumerate(spoken):
                self._observer.sample = one.prepared.name if number < watched else None
                self._answer(one)
                done()

    def _walk_by_layer(self, spoken: Sequence[Spoken], watched: int, done: Report) -> None:
        module, source = self._module, self._checkpoint.weights
        states = [one.embeds[None] for one in spoken]
        for index, layer in enumerate(module.layers):
            prefix = f"layers.{index}."
            with _loaded(layer, self._recipes, source, prefix), self._observer.watching(layer, prefix):
                for number, one in enumerate(spoken):
                    self._observer.sample = one.prepared.name if number < watched else None
                    states[number] = self._step(layer, states[number], 0, *self._caches(states[number].shape[1]))[0]
            done()
        with _loaded(module, self._recipes, source, skip="layers."):
            for number, (one, state) in enumerate(zip(spoken, states, strict=True)):
                self._observer.sample = one.prepared.name if number < watched else None
                one.logits.append(self._logits(state, one.prepared.name))

    def _answer(self, one: Spoken) -> None:
        stops = self._checkpoint.stop_tokens
        tied = self._checkpoint.tied
        table = self._module.head if tied else self._checkpoint.weights.tensor(TOKEN_TABLE)
        length = len(one.embeds)
        caches = [self._caches(length + self._answer_tokens) for _ in self._module.layers]
        state, at = one.embeds[None], 0
        while True:
            added = state.shape[1]
            for index, layer in enumerate(self._module.layers):
                state, *caches[index] = self._step(layer, state, at, *caches[index])
            at += added
            one.logits.append(self._logits(state, one.prepared.name))
            token = int(one.logits[-1].argmax())
            if token in stops or len(one.tokens) == self._answer_tokens:
                return
            one.tokens.append(token)
            state = table[token].float()[None, None]

    def _step(self, layer: nn.Module, state: Tensor, at: int, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        index = torch.tensor([at])
        mask = causal_mask(index, state.shape[1], key.shape[2])
        angles, bias = self._module.prepare(state, index, mask)
        return layer(state, angles, bias, index, key, value)

    def _caches(self, capacity: int) -> list[Tensor]:
        text = self._checkpoint.config.text
        return [torch.zeros(1, text.kv_heads, capacity, text.head_dim) for _ in range(2)]

    def _logits(self, state: Tensor, sample: str) -> NDArray[np.float32]:
        last = state[:, -1:]
        self._observer.see(HEAD, self._module.norm(last))
        logits, _ = self._module.predict(last)
        row: NDArray[np.float32] = logits[0].numpy()
        if not np.isfinite(row).all():
            token = int(np.flatnonzero(~np.isfinite(row))[0])
            raise GarCalibrationError(
                f"{HEAD}: logit of token {token} is not finite for sample {sample}; check the checkpoint's weights"
            )
        return row


@contextmanager
def _loaded(
    module: nn.Module, recipes: Mapping[str, Recipe], source: WeightSource, prefix: str = "", skip: str | None = None
) -> Iterator[None]:
    """Parameters that live as long as the context; `skip`: a prefix of those that stay away."""
    held = [
        (name, parameter) for name, parameter in module.named_parameters() if skip is None or not name.startswith(skip)
    ]
    for name, parameter in held:
        parameter.data = recipes[prefix + name].make(source, parameter.dtype)
    try:
        yield
    finally:
        for _, parameter in held:
            parameter.data = torch.empty(0)


def decoder_bytes(checkpoint: Checkpoint) -> int:
    """The decoder's size in float32."""
    recipes = decoder_recipes(checkpoint.config, checkpoint.tied)
    names: Iterable[str] = (name for recipe in recipes.values() for name in recipe.sources)
    return 4 * sum(int(np.prod(checkpoint.weights.shape(name))) for name in names)
