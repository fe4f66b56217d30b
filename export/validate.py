"""Does the written bundle compute what the torch model computes? Asked of the files, through the runtime itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import nn

from gar_edge.calibration.evaluate import Loss
from gar_edge.export.contract import broken_contract
from gar_edge.export.graphs import Precision, cache_names
from gar_edge.export.progress import Progress
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.config import GarConfig
from gar_edge.models.llama import Decoder, causal_mask
from gar_edge.models.replay import replay
from gar_edge.models.vision import ByteEncoder
from gar_edge.models.weights import TOKEN_TABLE, build_module, decoder_recipes, encoder_recipes, load_parameters
from gar_edge.runtime.bundle.bundle import Bundle
from gar_edge.runtime.bundle.manifest import GraphForm, Manifest
from gar_edge.runtime.engines.host_memory import give_back_freed
from gar_edge.runtime.engines.onnxruntime.processor import OnnxRuntimeBackend
from gar_edge.runtime.errors import GarError
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.generate.options import Options
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.images.preprocess import cut_mask
from gar_edge.runtime.images.shape import mask_box
from gar_edge.runtime.model.decoder import DecoderGraph
from gar_edge.runtime.model.start import start_sequence

# Smallest cosine and largest relative L2 distance between graph and torch (torch always in float32).
# int8, fp8: of two forms of one quantisation, where float16 moves a value over a step of its rounding here and there.
LIMITS = {
    Precision.FP32: (0.999999, 1e-3),
    Precision.FP16: (0.999, 5e-2),
    Precision.INT8: (0.99, 0.15),
    Precision.FP8: (0.99, 0.15),
}
LEAST_QUANTISED = 0.9  # cosine under which a quantised graph is broken rather than coarse
# Where torch prefers its own token to the graph's by less than this share of the logits' spread, the two are a tie.
TIE = {Precision.FP32: 1e-3, Precision.FP16: 5e-2}
COMPAT = "decoder_compat"  # its check's name
TOKENS = 8
PREFILL = 48  # positions of random embeddings, then TOKENS steps
MEMORY_FACTOR = 3.2  # torch's copy, the engine's, its packed one and activations, over the decoder's float32 size


@dataclass(frozen=True)
class Check:
    """One comparison. ok None: left out or not judged, `detail` says why."""

    name: str
    ok: bool | None
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All comparisons of one bundle."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok is not False for check in self.checks)

    def failure(self) -> str:
        """One line on what failed."""
        failed = [f"{check.name}: {check.detail}" for check in self.checks if check.ok is False]
        return "validation failed, no bundle was kept (--no-validate keeps one unchecked): " + "; ".join(failed)

    def to_json(self) -> dict[str, Any]:
        return {check.name: {"ok": check.ok, "detail": check.detail, **check.figures} for check in self.checks}


def validate(
    checkpoint: Checkpoint,
    folder: Path,
    manifest: Manifest,
    precision: Precision,
    progress: Progress,
    loss: Loss | None = None,
    judged: bool = True,
) -> Report:
    """Compare a written bundle with the checkpoint it came from.

    A quantised one is judged by its `loss` on real samples: noise is nothing that it was calibrated for. judged False:
    the loss is only told, as of random weights, which carry rounding errors on and on and have nothing to lose.
    """
    progress.begin("Validating: graph inputs and outputs")
    broken = broken_contract(checkpoint.config, manifest, folder)
    checks = [Check("contract", broken is None, broken or "inputs and outputs as specified")]
    compat = GraphForm.COMPAT in manifest.engine_graphs
    if loss is not None:
        checks += _quantised(loss, judged)
        if not compat:
            return Report(tuple(checks))
    needed = _decoder_bytes(checkpoint.config) * MEMORY_FACTOR
    give_back_freed()
    available = psutil.virtual_memory().available
    if available < needed:
        detail = f"left out: needs about {needed / 1e9:.0f} GB of memory, {available / 1e9:.0f} GB are available"
        return Report((*checks, Check("numerics" if loss is None else COMPAT, None, detail)))
    model = TorchModel(checkpoint)
    with torch.inference_mode():
        if loss is None:
            checks += _float(model, Bundle(folder, manifest.for_engine(GraphForm.CPU)), precision, progress)
        if compat:
            progress.begin("Validating: compat decoder")
            checks.append(_compat(model, Bundle(folder, manifest), precision))
    return Report(tuple(checks))


def _float(model: TorchModel, bundle: Bundle, precision: Precision, progress: Progress) -> Iterator[Check]:
    gar = Gar(Pipeline.of(bundle, OnnxRuntimeBackend(bundle.folder, bundle.manifest)))
    steps: dict[str, Callable[[TorchModel, Gar, Precision], Check]] = {
        "encoder": _encoder,
        "roi_replay": _replay,
        "decoder": _decoder,
        "pipeline": _pipeline,
    }
    for name, step in steps.items():
        progress.begin(f"Validating: {name} against torch")
        yield step(model, gar, precision)


def _quantised(loss: Loss, judged: bool) -> Iterator[Check]:
    for name, likeness in (("encoder", loss.encoder), ("decoder", loss.decoder)):
        ok = likeness.cosine >= LEAST_QUANTISED
        detail = f"cosine {likeness.cosine:.5f} to float on held-out samples, relative L2 {likeness.relative_error:.2e}"
        if not judged:
            yield Check(name, None, f"{detail}; not judged, the weights are random", asdict(likeness))
            continue
        yield Check(name, ok, detail + ("" if ok else f" (allowed: cosine ≥ {LEAST_QUANTISED})"), asdict(likeness))


def compare(name: str, found: NDArray[Any], expected: NDArray[Any], precision: Precision) -> Check:
    """Largest and mean absolute difference, relative L2 distance and cosine of two arrays of one shape."""
    a, b = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    difference = np.abs(a - b)
    norm_a, norm_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    relative = float(np.linalg.norm(a - b)) / max(norm_b, 1e-30)
    cosine = float(a @ b) / max(norm_a * norm_b, 1e-30)
    least, most = LIMITS[precision]
    ok = bool(np.isfinite(a).all()) and cosine >= least and relative <= most
    figures = {
        "max_abs": float(difference.max()),
        "mean_abs": float(difference.mean()),
        "relative_l2": relative,
        "cosine": cosine,
    }
    detail = f"max diff {figures['max_abs']:.2e}, mean {figures['mean_abs']:.2e}, cosine {cosine:.7f}"
    if not ok:
        detail += f" (allowed: cosine ≥ {least}, relative L2 ≤ {most:g}, found {relative:.2e})"
    return Check(name, ok, detail, figures)


def _encoder(model: TorchModel, gar: Gar, precision: Precision) -> Check:
    random = np.random.default_rng(0)
    side = model.config.vision.tile
    pixels = random.integers(0, 256, (2, 3, side, side), np.uint8)
    mask = random.random((2, side, side)) < 0.3
    found = gar.pipeline.vision.encode(pixels, mask).read()
    expected = model.encoder(torch.from_numpy(pixels), torch.from_numpy(mask[:, None]))
    return compare("encoder", found, expected.numpy(), precision)


def _replay(model: TorchModel, gar: Gar, precision: Precision) -> Check:
    config = model.config
    random = np.random.default_rng(1)
    grid = (3, 2)
    features = random.standard_normal((1 + grid[0] * grid[1], config.tile_tokens, config.text.hidden))
    corners = np.sort(random.random((4, 2, 2)), axis=1)
    boxes = corners.reshape(4, 4).astype(np.float32)
    buffer = gar.pipeline.backend.empty(features.shape, gar.pipeline.vision.dtype)
    buffer.write(features.astype(gar.pipeline.vision.dtype))
    found = gar.pipeline.vision.roi_replay(
        buffer, grid, [(float(a), float(b), float(c), float(d)) for a, b, c, d in boxes]
    ).read()
    given = torch.from_numpy(features.astype(gar.pipeline.vision.dtype)).float()
    expected = replay(given, grid, torch.from_numpy(boxes), config.replay_spatial_scale)
    return compare("roi_replay", found, expected.numpy(), precision)


def _decoder(model: TorchModel, gar: Gar, precision: Precision) -> Check:
    embeds = _random_embeds(gar.pipeline.bundle, gar.pipeline.decoder.dtype)
    return compare("decoder", _logits(gar.pipeline.decoder, embeds), _torch_logits(model, embeds), precision)


def _compat(model: TorchModel, bundle: Bundle, precision: Precision) -> Check:
    """Against torch; where both are quantised, against the form for CPUs: the same numbers, rounded elsewhere."""
    graph = _decoder_for(bundle, GraphForm.COMPAT)
    embeds = _random_embeds(bundle, graph.dtype)
    found = _logits(graph, embeds)
    del graph  # makes room for what it is compared with
    if precision.quantised:
        return compare(COMPAT, found, _logits(_decoder_for(bundle, GraphForm.CPU), embeds), precision)
    return compare(COMPAT, found, _torch_logits(model, embeds), precision)


def _decoder_for(bundle: Bundle, engine: str) -> DecoderGraph:
    view = bundle.manifest.for_engine(engine)
    return DecoderGraph(OnnxRuntimeBackend(bundle.folder, view), view)


def _random_embeds(bundle: Bundle, dtype: np.dtype[Any]) -> NDArray[Any]:
    """[PREFILL + TOKENS, C] of the size of token embeddings, which is what a decoder is used to."""
    dims = bundle.manifest.dimensions
    scale = float(bundle.embed(np.arange(min(256, dims.vocab))).astype(np.float64).std())
    embeds = np.random.default_rng(2).standard_normal((PREFILL + TOKENS, dims.hidden)) * scale
    return embeds.astype(dtype)


def _logits(graph: DecoderGraph, embeds: NDArray[Any]) -> NDArray[np.float32]:
    """Logits behind the prefill and behind each step, [1 + TOKENS, V]."""
    embeds = embeds.astype(graph.dtype)
    sequence = start_sequence(graph, len(embeds))
    buffer = graph.backend.empty((PREFILL, embeds.shape[1]), graph.dtype)
    buffer.write(embeds[:PREFILL])
    first = sequence.prefill(buffer).logits()
    return np.concatenate([first, *(sequence.step(embed[None]).logits() for embed in embeds[PREFILL:])])


def _torch_logits(model: TorchModel, embeds: NDArray[Any]) -> NDArray[np.float32]:
    given = torch.from_numpy(embeds).float()
    reference = TorchSequence(model, len(embeds))
    return np.stack([reference.append(given[:PREFILL]), *(reference.append(embed[None]) for embed in given[PREFILL:])])


def _pipeline(model: TorchModel, gar: Gar, precision: Precision) -> Check:
    """The first greedy tokens of a whole question, from pixels on, next to the torch model's own."""
    config, prompt = model.config, gar.manifest.prompt
    side = config.vision.tile
    image = np.random.default_rng(3).integers(0, 256, (side, side, 3), np.uint8)
    mask = np.zeros((side, side), np.bool_)
    mask[side // 4 : side // 2, side // 3 : side - side // 8] = True
    number = prompt.default_region
    try:
        scene = gar.open(image, max_tiles=1)
        answer = scene.describe(mask, options=Options(max_new_tokens=TOKENS))
    except GarError as error:
        return Check("pipeline", False, str(error))

    pixels = scene.tiles.pixels
    cut = cut_mask({number: mask}, scene.grid, gar.manifest.preprocess, len(prompt.regions))
    features = model.encoder(torch.from_numpy(pixels), torch.from_numpy(cut[:, None]))
    box = torch.tensor([mask_box(mask)], dtype=torch.float32)
    replayed = replay(features, scene.grid, box, config.replay_spatial_scale)
    ids = gar.pipeline.prompts.build(None, [number], len(pixels))
    table = model.token_table
    embeds = table[torch.from_numpy(ids)].float()
    embeds[torch.from_numpy(ids == prompt.image_token)] = features.flatten(0, 1)
    embeds[torch.from_numpy(ids == prompt.replay_tokens[number])] = replayed.flatten(0, 1)

    reference = TorchSequence(model, len(ids) + TOKENS)
    logits = reference.append(embeds)
    ties = 0
    for count, token in enumerate(answer.tokens, 1):
        behind = (float(logits.max()) - logits[token]) / float(logits.std())
        if behind > TIE[precision]:
            detail = f"token {count} is {token}, torch's is {logits.argmax()} ({behind:.2g} standard deviations apart)"
            return Check("pipeline", False, detail)
        ties += int(token != logits.argmax())
        if count < len(answer.tokens):
            logits = reference.append(table[token][None].float())
    figures = {"tokens": list(answer.tokens), "prompt_tokens": len(ids), "ties": ties}
    detail = f"first {len(answer.tokens)} greedy tokens equal" + (f", {ties} of them by a tie" if ties else "")
    return Check("pipeline", True, detail, figures)


class TorchModel:
    """The torch modules of a checkpoint in float32, each loaded when first needed."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config

    @cached_property
    def encoder(self) -> nn.Module:
        pixels = self.checkpoint.preprocessing
        module = build_module(lambda config: ByteEncoder(config, pixels), self.config, torch.float32)
        load_parameters(module, encoder_recipes(self.config), self.checkpoint.weights)
        return module

    @cached_property
    def decoder(self) -> nn.Module:
        module = build_module(Decoder, self.config.text, torch.float32)
        load_parameters(module, decoder_recipes(self.config, self.checkpoint.tied), self.checkpoint.weights)
        return module

    @property
    def token_table(self) -> torch.Tensor:
        return self.checkpoint.weights.tensor(TOKEN_TABLE)


class TorchSequence:
    """The torch decoder over one growing sequence."""

    def __init__(self, model: TorchModel, capacity: int) -> None:
        text = model.config.text
        self._decoder = model.decoder
        shape = (1, text.kv_heads, capacity, text.head_dim)
        self._caches = [torch.zeros(shape) for _ in cache_names(text)]
        self._length = 0

    def append(self, embeds: torch.Tensor) -> NDArray[np.float32]:
        """Append [S,C]; logits [V] of the last position."""
        index = torch.tensor([self._length])
        mask = causal_mask(index, len(embeds), self._caches[0].shape[2])
        last = torch.tensor([len(embeds) - 1])
        logits, _, *self._caches = self._decoder(embeds[None], index, mask, last, self._caches)
        self._length += len(embeds)
        row: NDArray[np.float32] = logits[0].numpy()
        return row


def _decoder_bytes(config: GarConfig) -> int:
    text = config.text
    layer = text.hidden * (3 * text.ffn + (2 * text.heads + 2 * text.kv_heads) * text.head_dim)
    return 4 * (text.layers * layer + 2 * text.vocab * text.hidden)
