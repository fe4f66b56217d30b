"""Does the written bundle compute what the torch model computes? Asked of the files, through the runtime itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import psutil
import torch
from numpy.typing import NDArray
from torch import nn

from gar_edge.calibration.evaluate import Loss
from gar_edge.export.describe import ports
from gar_edge.export.graphs import Precision, cache_names
from gar_edge.export.progress import Progress
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.config import GarConfig
from gar_edge.models.llama import Decoder, causal_mask
from gar_edge.models.replay import replay
from gar_edge.models.vision import Encoder
from gar_edge.models.weights import TOKEN_TABLE, build_module, decoder_recipes, encoder_recipes, load_parameters
from gar_edge.runtime.backends import CPU_ENGINE
from gar_edge.runtime.bundle import Bundle
from gar_edge.runtime.errors import GarError
from gar_edge.runtime.gar import Gar
from gar_edge.runtime.images import mask_box
from gar_edge.runtime.manifest import Manifest, Port
from gar_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend
from gar_edge.runtime.preprocess import cut_mask, normalise
from gar_edge.runtime.sampling import Options

# Smallest cosine and largest relative L2 distance between graph and torch (torch always in float32).
LIMITS = {Precision.FP32: (0.999999, 1e-3), Precision.FP16: (0.999, 5e-2)}
LEAST_QUANTISED = 0.9  # cosine under which a quantised graph is broken rather than coarse
# Where torch prefers its own token to the graph's by less than this share of the logits' spread, the two are a tie.
TIE = {Precision.FP32: 1e-3, Precision.FP16: 5e-2}
TOKENS = 8
PREFILL = 48  # positions of random embeddings, then TOKENS steps
MEMORY_FACTOR = 3.2  # torch's copy, the engine's, its packed one and activations, over the decoder's float32 size


@dataclass(frozen=True)
class Check:
    """One comparison. ok None: left out, `detail` says why."""

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
) -> Report:
    """Compare a written bundle with the checkpoint it came from.

    A quantised one is judged by its `loss` on real samples: noise is nothing that it was calibrated for.
    """  # fmt: skip
    progress.begin("Validating: graph inputs and outputs")
    checks = [_contract(checkpoint.config, manifest, folder)]
    manifest = manifest.for_engine(CPU_ENGINE)
    if loss is not None:
        return Report((*checks, *_quantised(loss)))
    needed = _decoder_bytes(checkpoint.config) * MEMORY_FACTOR
    available = psutil.virtual_memory().available
    if available < needed:
        detail = f"left out: needs about {needed / 1e9:.0f} GB of memory, {available / 1e9:.0f} GB are available"
        return Report((*checks, Check("numerics", None, detail)))
    gar = Gar(Bundle(folder, manifest), OnnxRuntimeBackend(folder, manifest))
    torch_model = TorchModel(checkpoint)
    steps: dict[str, Callable[[TorchModel, Gar, Precision], Check]] = {
        "encoder": _encoder,
        "roi_replay": _replay,
        "decoder": _decoder,
        "pipeline": _pipeline,
    }
    for name, step in steps.items():
        progress.begin(f"Validating: {name} against torch")
        with torch.inference_mode():
            checks.append(step(torch_model, gar, precision))
    return Report(tuple(checks))


def expected_ports(config: GarConfig, dtype: str) -> dict[str, tuple[list[Port], list[Port]]]:
    """The contract: every graph's inputs and outputs for these dimensions."""
    side, tokens, hidden, text = config.vision.tile, config.tile_tokens, config.text.hidden, config.text
    cache = ("batch", text.kv_heads, "capacity", text.head_dim)
    names = cache_names(text)
    return {
        "encoder": (
            [Port("pixel_values", dtype, ("tiles", 3, side, side)), Port("mask", dtype, ("tiles", 1, side, side))],
            [Port("features", dtype, ("tiles", tokens, hidden))],
        ),
        "roi_replay": (
            [
                Port("features", dtype, ("tiles", tokens, hidden)),
                Port("grid", "int64", (2,)),
                Port("boxes", "float32", ("regions", 4)),
            ],
            [Port("replayed", dtype, ("regions", tokens, hidden))],
        ),
        "decoder": (
            [
                Port("inputs_embeds", dtype, ("batch", "length", hidden)),
                Port("write_index", "int64", ("batch",)),
                Port("attention_mask", "bool", ("batch", 1, "length", "capacity")),
                *(Port(name, dtype, cache) for name in names),
            ],
            [
                Port("logits", dtype, ("batch", text.vocab)),
                *(Port(name + "_out", dtype, cache) for name in names),
            ],
        ),
    }


def _contract(config: GarConfig, manifest: Manifest, folder: Path) -> Check:
    """The written files' own inputs and outputs, and the manifest's account of them, against the contract."""
    problems = [_form_contract(config, manifest.for_engine(engine), folder) for engine in ("", *manifest.engine_graphs)]
    found = next((problem for problem in problems if problem), None)
    return Check("contract", found is None, found or "inputs and outputs as specified")


def _form_contract(config: GarConfig, manifest: Manifest, folder: Path) -> str | None:
    """What is wrong with one engine's form of the graphs."""
    decoder = manifest.graphs["decoder"]
    dtype = next(port.dtype for port in decoder.inputs if port.name == "inputs_embeds")
    for name, (inputs, outputs) in expected_ports(config, dtype).items():
        graph = manifest.graphs[name]
        written = ir.load(folder / graph.files[0]).graph
        for wanted, said, found in (
            (inputs, graph.inputs, ports(written.inputs)),
            (outputs, graph.outputs, ports(written.outputs)),
        ):
            if sorted(found, key=str) != sorted(wanted, key=str) or list(said) != found:
                odd = sorted({str(port) for port in found} ^ {str(port) for port in wanted})
                return f"{graph.files[0]} is not as specified: {'; '.join(odd[:3])}"
    return None


def _quantised(loss: Loss) -> Iterator[Check]:
    for name, likeness in (("encoder", loss.encoder), ("decoder", loss.decoder)):
        ok = likeness.cosine >= LEAST_QUANTISED
        detail = f"cosine {likeness.cosine:.5f} to float on held-out samples, relative L2 {likeness.relative_error:.2e}"
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
    found = gar.vision.encode(pixels, mask).read()
    expected = model.encoder(*_torch_tiles(pixels, mask, gar.manifest))
    return compare("encoder", found, expected.numpy(), precision)


def _replay(model: TorchModel, gar: Gar, precision: Precision) -> Check:
    config = model.config
    random = np.random.default_rng(1)
    grid = (3, 2)
    features = random.standard_normal((1 + grid[0] * grid[1], config.tile_tokens, config.text.hidden))
    corners = np.sort(random.random((4, 2, 2)), axis=1)
    boxes = corners.reshape(4, 4).astype(np.float32)
    buffer = gar.backend.empty(features.shape, gar.vision.dtype)
    buffer.write(features.astype(gar.vision.dtype))
    found = gar.vision.replay(buffer, grid, [(float(a), float(b), float(c), float(d)) for a, b, c, d in boxes]).read()
    given = torch.from_numpy(features.astype(gar.vision.dtype)).float()
    expected = replay(given, grid, torch.from_numpy(boxes), config.replay_spatial_scale)
    return compare("roi_replay", found, expected.numpy(), precision)


def _decoder(model: TorchModel, gar: Gar, precision: Precision) -> Check:
    hidden = model.config.text.hidden
    embeds = np.random.default_rng(2).standard_normal((PREFILL + TOKENS, hidden)) * _embedding_scale(gar)
    embeds = embeds.astype(gar.decoder.dtype)
    sequence = gar.decoder.start(len(embeds))
    buffer = gar.backend.empty((PREFILL, hidden), gar.decoder.dtype)
    buffer.write(embeds[:PREFILL])
    found = [sequence.prefill(buffer), *(sequence.step(embed) for embed in embeds[PREFILL:])]
    given = torch.from_numpy(embeds).float()
    reference = TorchSequence(model, len(embeds))
    expected = [reference.append(given[:PREFILL]), *(reference.append(embed[None]) for embed in given[PREFILL:])]
    return compare("decoder", np.stack(found), np.stack(expected), precision)


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
    features = model.encoder(*_torch_tiles(pixels, cut, gar.manifest))
    box = torch.tensor([mask_box(mask)], dtype=torch.float32)
    replayed = replay(features, scene.grid, box, config.replay_spatial_scale)
    ids = gar.prompts.build(None, [number], len(pixels))
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
        module = build_module(Encoder, self.config, torch.float32)
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
        logits, *self._caches = self._decoder(embeds[None], index, mask, self._caches)
        self._length += len(embeds)
        row: NDArray[np.float32] = logits[0].numpy()
        return row


def _torch_tiles(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], manifest: Manifest
) -> tuple[torch.Tensor, torch.Tensor]:
    values = normalise(pixels, manifest.preprocess, np.dtype(np.float32))
    return torch.from_numpy(values), torch.from_numpy(mask[:, None].astype(np.float32))


def _embedding_scale(gar: Gar) -> float:
    """Spread of the token table's rows: random embeddings should be of the size the decoder is used to."""
    return float(gar.bundle.token_table[:256].astype(np.float64).std())


def _decoder_bytes(config: GarConfig) -> int:
    text = config.text
    layer = text.hidden * (3 * text.ffn + (2 * text.heads + 2 * text.kv_heads) * text.head_dim)
    return 4 * (text.layers * layer + 2 * text.vocab * text.hidden)
