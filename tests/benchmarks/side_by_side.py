"""A bundle and a peer that does the same work, round by round in turn; the peers are in `against_*.py`."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from precisions import decode, encode

from gar_edge.models.config import GarConfig
from gar_edge.runtime.bench.report import machine
from gar_edge.runtime.gar import Gar

PromptTokens = Annotated[int, typer.Option(min=1, help="Of the prompt; 4 tiles and one region of the 1B make 1843.")]


@dataclass(frozen=True)
class Work:
    """What one round asks for: encoder passes, prompt tokens, and decode steps after the prompt."""

    tiles: int
    tokens: int
    steps: int


@dataclass(frozen=True)
class Speed:
    """What one round came to: tokens a second of the prompt and after it, and tiles where the peer has an encoder."""

    prefill: float
    decode: float
    encode: float | None = None


class Peer(Protocol):
    def round(self, work: Work) -> Speed: ...


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def load(model: Path, config: GarConfig) -> Gar:
    """The bundle, on the processor; it must be of the peer's size."""
    gar = Gar.load(model, backend="onnxruntime", threads=cores())
    dims = gar.manifest.dimensions
    if (dims.hidden, dims.layers, dims.vocab) != (config.text.hidden, config.text.layers, config.text.vocab):
        raise SystemExit(f"{model} is not of this --size")
    return gar


def compare(gar: Gar, peer: Peer, about: dict[str, Any], work: Work, rounds: int) -> str:
    """One JSON object: medians of tiles and tokens a second and of the first token, and the bundle's over the peer's.

    A first round warms up. about: the peer in words.
    """
    ours, theirs = [], []
    for _ in range(rounds + 1):
        prefill, step = decode(gar, work.tokens, work.steps)
        theirs.append(peer.round(work))
        ours.append(Speed(prefill, step, None if theirs[0].encode is None else encode(gar, work.tiles)))
    mine, others = (_medians(speeds[1:], work) for speeds in (ours, theirs))
    return json.dumps(
        {
            "bundle": {"name": gar.manifest.name} | _rounded(mine),
            "peer": about | _rounded(others),
            "ratio": _rounded({name: mine[name] / others[name] for name in mine}),
            "work": vars(work),
            "rounds": rounds,
            "threads": cores(),
            "machine": machine(),
        }
    )


def _medians(speeds: list[Speed], work: Work) -> dict[str, float]:
    found = {
        "prefill_tokens_per_s": statistics.median(one.prefill for one in speeds),
        "decode_tokens_per_s": statistics.median(one.decode for one in speeds),
    }
    encodes = [one.encode for one in speeds if one.encode is not None]
    if encodes:
        found["encode_tiles_per_s"] = statistics.median(encodes)
        found["first_token_s"] = work.tiles / found["encode_tiles_per_s"] + work.tokens / found["prefill_tokens_per_s"]
    return found


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}
