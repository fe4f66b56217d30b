"""The float model over calibration samples, one layer in memory at a time where it must, watched at every site."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gar_edge.calibration.histogram import ROWS, ChannelHistogram
from gar_edge.calibration.prepare import Prepared
from gar_edge.calibration.sites import HEAD, Site
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.config import GarConfig
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

ACTIVATIONS = 1 << 23  # bytes of a feed-forward's activations at once, with what attention adds to its scores
CACHES = 1 << 29  # bytes of the caches of samples that answer side by side

COUNTED = 1 << 15  # rows of a site in one run over all samples that its histogram counts, at most, shared among them

Report = Callable[[], None]


class Observer:
    """Statistics of every site's input. watched: of how many samples.

    samples: whose activations come next, one behind the other, and how many of their first axis' entries each has;
    what lies behind those is not looked at. rows: which of all positions those are, None: the first.
    """

    def __init__(self, sites: Sequence[Site], watched: int = 1) -> None:
        counted = min(ROWS, -(-COUNTED // max(watched, 1)))
        self.statistics = {site.name: ChannelHistogram(site.channels, counted=counted) for site in sites}
        self.samples: list[tuple[str, int]] = []
        self.rows: Tensor | None = None

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

    def look(self, samples: Iterable[tuple[str, int]], rows: Tensor | None = None) -> None:
        """Whose activations come next."""
        self.samples, self.rows = list(samples), rows

    def see(self, site: str, x: Tensor) -> None:
        """Take in activations [N, ..., C]; with `rows` given, they number the entries of all axes but the last."""
        if not self.samples:
            return
        x = x.flatten(0, -2)[self.rows] if self.rows is not None else x[: sum(count for _, count in self.samples)]
        each = x[0].numel() // x.shape[-1]
        self.statistics[site].observe(x.flatten(0, -2), site, [(name, count * each) for name, count in self.samples])


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
    batches = _tile_batches(config, samples, watched)
    with _loaded(module, recipes, source, skip="blocks."):
        stems = [module.stem(torch.from_numpy(one.pixels), torch.from_numpy(one.mask[:, None])) for one in samples]
    states = torch.cat(stems)
    del stems
    for index, block in enumerate(module.blocks):
        prefix = f"blocks.{index}."
        with _loaded(block, recipes, source, prefix), observer.watching(block, prefix):
            for tiles, seen in batches:
                observer.look(seen)
                states[tiles] = block(states[tiles], module.cos, module.sin)
        done()
    with _loaded(module, recipes, source, skip="blocks."), observer.watching(module):
        features = []
        for tiles, seen in batches:
            observer.look(seen)
            features.append(module.projector(states[tiles]))
    table = source.tensor(TOKEN_TABLE)
    each = torch.cat(features).split([len(sample.pixels) for sample in samples])
    return [
        Spoken(sample, own, _embed(checkpoint, sample, own, table)) for sample, own in zip(samples, each, strict=True)
    ]


def _tile_batches(
    config: GarConfig, samples: Sequence[Prepared], watched: int
) -> list[tuple[slice, list[tuple[str, int]]]]:
    """All samples' tiles, one sample behind the other, as many at once as memory allows, and whose are watched."""
    vision = config.vision
    tokens = vision.grid**2 + int(vision.class_token)
    at_once = ACTIVATIONS // (tokens * vision.mlp * 4)
    owners = [(number, sample.name) for number, sample in enumerate(samples) for _ in sample.pixels]
    batches = []
    for begin in range(0, len(owners), max(1, at_once)):
        tiles = slice(begin, begin + max(1, at_once))
        seen = Counter(owner for owner in owners[tiles] if owner[0] < watched)
        batches.append((tiles, [(name, count) for (_, name), count in seen.items()]))
    return batches


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
        self._names: list[str] = []  # of the samples that are observed: the first ones

    def run(self, spoken: Sequence[Spoken], watched: int, done: Report) -> None:
        """Fill in every sample's answer and logits; the first `watched` are observed."""
        module, source = self._module, self._checkpoint.weights
        self._names = [one.prepared.name for one in spoken[:watched]]
        if not self._resident:
            self._walk_by_layer(spoken, done)
            return
        text = self._checkpoint.config.text
        slots = max(len(one.embeds) for one in spoken) + self._answer_tokens
        at_once = max(1, CACHES // (8 * text.layers * text.kv_heads * text.head_dim * slots))
        with _loaded(module, self._recipes, source), self._observer.watching(module):
            for begin in range(0, len(spoken), at_once):
                self._answer(spoken, range(begin, min(begin + at_once, len(spoken))), done)

    def _walk_by_layer(self, spoken: Sequence[Spoken], done: Report) -> None:
        module, source = self._module, self._checkpoint.weights
        states = [one.embeds[None] for one in spoken]
        start = torch.tensor([0])
        for index, layer in enumerate(module.layers):
            prefix = f"layers.{index}."
            with _loaded(layer, self._recipes, source, prefix), self._observer.watching(layer, prefix):
                for number, state in enumerate(states):
                    self._look([number], [1])
                    states[number] = self._step(layer, state, start, *self._caches(1, state.shape[1]))[0]
            done()
        with _loaded(module, self._recipes, source, skip="layers."):
            for number, (one, state) in enumerate(zip(spoken, states, strict=True)):
                self._look([number], [1])
                one.logits += self._logits(state[:, -1:], [one])

    def _answer(self, spoken: Sequence[Spoken], numbers: Sequence[int], done: Report) -> None:
        """Samples side by side. Prompts are padded behind their ends, where no mask lets anybody look."""
        stops, tied = self._checkpoint.stop_tokens, self._checkpoint.tied
        table = self._module.head if tied else self._checkpoint.weights.tensor(TOKEN_TABLE)
        at = torch.tensor([len(spoken[number].embeds) for number in numbers])
        state, caches = self._read([spoken[number].embeds for number in numbers], numbers)
        while numbers:
            self._look(numbers, [1] * len(numbers))
            kept = []
            logits = self._logits(state, [spoken[number] for number in numbers])
            for row, (number, found) in enumerate(zip(numbers, logits, strict=True)):
                one, token = spoken[number], int(found.argmax())
                one.logits.append(found)
                if token in stops or len(one.tokens) == self._answer_tokens:
                    done()
                else:
                    one.tokens.append(token)
                    kept.append(row)
            if len(kept) < len(numbers):
                numbers, at = [numbers[row] for row in kept], at[kept]
                caches = [[cache[kept] for cache in pair] for pair in caches]
            state = table[[spoken[number].tokens[-1] for number in numbers]].float()[:, None]
            self._look(numbers, [1] * len(numbers))
            for index, layer in enumerate(self._module.layers if numbers else ()):
                state, *caches[index] = self._step(layer, state, at, *caches[index])
            at = at + 1

    def _read(self, prompts: Sequence[Tensor], numbers: Sequence[int]) -> tuple[Tensor, list[list[Tensor]]]:
        """What comes out behind each prompt's last position, [B,1,C], and the layers' caches."""
        text = self._checkpoint.config.text
        longest = max(len(prompt) for prompt in prompts)
        slots = longest + self._answer_tokens
        caches = [self._caches(len(prompts), slots) for _ in self._module.layers]
        at_once = max(1, ACTIVATIONS // (4 * longest * (3 * text.ffn + 2 * text.heads * slots)))
        behind = []
        for begin in range(0, len(prompts), at_once):
            part = slice(begin, begin + at_once)
            lengths = [len(prompt) for prompt in prompts[part]]
            state = pad_sequence(list(prompts[part]), batch_first=True)
            self._look(numbers[part], lengths, state.shape[1])
            start = torch.zeros(len(lengths), dtype=torch.int64)
            for layer, (key, value) in zip(self._module.layers, caches, strict=True):
                state, key[part], value[part] = self._step(layer, state, start, key[part], value[part])
            behind.append(state[torch.arange(len(lengths)), torch.tensor(lengths) - 1])
        return torch.cat(behind)[:, None], caches

    def _look(self, numbers: Sequence[int], counts: Sequence[int], padded: int | None = None) -> None:
        """Say which samples come next, of how many positions each; padded: all take so many."""
        samples = [(self._names[n], count) for n, count in zip(numbers, counts, strict=True) if n < len(self._names)]
        rows = None
        if padded is not None and samples:
            rows = torch.cat([torch.arange(count) + row * padded for row, (_, count) in enumerate(samples)])
        self._observer.look(samples, rows)

    def _step(self, layer: nn.Module, state: Tensor, at: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        mask = causal_mask(at, state.shape[1], key.shape[2])
        angles, bias = self._module.prepare(state, at, mask)
        return layer(state, angles, bias, at, key, value)

    def _caches(self, count: int, slots: int) -> list[Tensor]:
        text = self._checkpoint.config.text
        return [torch.zeros(count, text.kv_heads, slots, text.head_dim) for _ in range(2)]

    def _logits(self, state: Tensor, spoken: Sequence[Spoken]) -> list[NDArray[np.float32]]:
        """After each sample's last position [B,1,C]."""
        self._observer.see(HEAD, self._module.norm(state))
        logits: NDArray[np.float32] = self._module.predict(state)[0].numpy()
        for one, row in zip(spoken, logits, strict=True):
            if not np.isfinite(row).all():
                token = int(np.flatnonzero(~np.isfinite(row))[0])
                raise GarCalibrationError(
                    f"{HEAD}: logit of token {token} is not finite for sample {one.prepared.name}; "
                    "check the checkpoint's weights"
                )
        return list(logits)


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
