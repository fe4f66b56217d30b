"""What quantisation cost: the written bundle next to the float model, on samples that calibrated nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gar_edge.calibration.observe import Spoken
from gar_edge.runtime.generate.pipeline import Pipeline
from gar_edge.runtime.model.start import start_sequence


@dataclass(frozen=True)
class Budget:
    """What a quantised bundle may lose: least cosine of features, most mean KL divergence of next tokens (nats)."""

    encoder_cosine: float = 0.998
    kl: float = 0.02


@dataclass(frozen=True)
class Likeness:
    """Cosine and relative L2 error of one graph's output, over all held-out samples."""

    cosine: float
    relative_error: float


@dataclass(frozen=True)
class Loss:
    """What a bundle lost against float.

    next_token_agreement: share of positions whose likeliest token is the same; kl: mean KL(float || quantised) in nats;
    positions: how many those were. The decoder's figures are the whole pipeline's, from pixels on.
    """

    encoder: Likeness
    decoder: Likeness
    next_token_agreement: float
    kl: float
    positions: int

    def within(self, budget: Budget) -> bool:
        return self.encoder.cosine >= budget.encoder_cosine and self.kl <= budget.kl

    def to_json(self) -> dict[str, Any]:
        decoder = asdict(self.decoder) | {
            "next_token_agreement": self.next_token_agreement, "kl": self.kl, "positions": self.positions,
        }  # fmt: skip
        return {"encoder": asdict(self.encoder), "decoder": decoder}


def measure(pipeline: Pipeline, reference: Sequence[Spoken]) -> Loss:
    """Run a bundle over the float model's own prompts and answers."""
    features, logits = _Sums(), _Sums()
    agreed, divergences = 0, []
    for spoken in reference:
        sample = spoken.prepared
        encoded = pipeline.vision.encode(sample.pixels, sample.mask)
        features.add(encoded.read(), spoken.features.numpy())
        replayed = pipeline.vision.roi_replay(encoded, sample.grid, sample.boxes)
        hidden = pipeline.manifest.dimensions.hidden
        embeds = np.array(pipeline.bundle.embed(sample.ids), np.float32)
        embeds[sample.ids == pipeline.manifest.prompt.image_token] = encoded.read().reshape(-1, hidden)
        for token, region in zip(sample.replay_tokens, replayed.read(), strict=True):
            embeds[sample.ids == token] = region
        for found, wanted in zip(_logits(pipeline, embeds, spoken.tokens), spoken.logits, strict=False):
            logits.add(found, wanted)
            agreed += int(found.argmax() == wanted.argmax())
            divergences.append(_kl(wanted, found))
    count = len(divergences)
    return Loss(features.likeness(), logits.likeness(), agreed / count, float(np.mean(divergences)), count)


def _logits(pipeline: Pipeline, embeds: NDArray[np.float32], tokens: Sequence[int]) -> list[NDArray[np.float32]]:
    """Logits after the prompt and after each of the given tokens, which are known: one run for all of them."""
    sequence = start_sequence(pipeline.decoder, len(embeds) + len(tokens))
    buffer = pipeline.backend.empty(embeds.shape, pipeline.decoder.dtype)
    buffer.write(embeds.astype(pipeline.decoder.dtype))
    first = sequence.prefill(buffer).logits()
    behind = sequence.step(pipeline.bundle.embed(np.asarray(tokens))).logits() if tokens else ()
    return [first[0], *behind]


def _kl(p_logits: NDArray[np.float32], q_logits: NDArray[np.float32]) -> float:
    p, q = _log_softmax(p_logits), _log_softmax(q_logits)
    return float((np.exp(p) * (p - q)).sum())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


class _Sums:
    """Inner products of pairs of arrays, added up."""

    def __init__(self) -> None:
        self._aa = self._bb = self._ab = self._difference = 0.0

    def add(self, found: NDArray[Any], wanted: NDArray[Any]) -> None:
        a, b = found.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
        self._aa += float(a @ a)
        self._bb += float(b @ b)
        self._ab += float(a @ b)
        self._difference += float(((a - b) ** 2).sum())

    def likeness(self) -> Likeness:
        cosine = self._ab / max((self._aa * self._bb) ** 0.5, 1e-30)
        return Likeness(cosine, (self._difference / max(self._bb, 1e-30)) ** 0.5)
