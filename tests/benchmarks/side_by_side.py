"""A bundle and a peer that does the same work, round by round in turn; the peers are in `against_*.py`."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gar_edge.runtime.bench.report import machine
from gar_edge.runtime.bench.stages import Contestant, Setting


@dataclass(frozen=True)
class Work:
    """What one round asks for: encoder passes, prompt tokens, and decode steps after the prompt."""

    tiles: int
    tokens: int
    steps: int


@dataclass(frozen=True)
class Times:
    """Seconds of one round."""

    prefill: float
    decode: float
    encode: float | None = None  # where the peer has an encoder


class Peer(Protocol):
    def round(self, work: Work) -> Times: ...


def compare(model: Path, peer: Peer, about: dict[str, Any], tiles: int, new_tokens: int, rounds: int) -> str:
    """One JSON object: medians of seconds and tokens a second, and the bundle's over the peer's.

    A first round warms up. model: a bundle; about: the peer in words; tiles: of the picture, beside the thumbnail.
    """
    ours = Contestant(model, Setting(tiles, (1,), new_tokens, "auto", "standard", 0), lambda step: None)
    times = []
    for number in range(rounds + 1):
        ours.round()
        made = peer.round(Work(tiles + 1, ours.prompt_tokens, new_tokens - 1))
        if number == 0:
            ours.samples.values.clear()
        else:
            times.append(made)
    figures = {name: statistics.median(values) for name, values in ours.samples.values.items()}
    mine = {
        "prefill_tokens_per_s": figures["prefill.tokens_per_s"],
        "decode_tokens_per_s": figures["decode.tokens_per_s"],
    }
    theirs = {
        "prefill_tokens_per_s": ours.prompt_tokens / statistics.median(one.prefill for one in times),
        "decode_tokens_per_s": (new_tokens - 1) / statistics.median(one.decode for one in times),
    }
    encodes = [one.encode for one in times if one.encode is not None]
    if encodes:
        mine |= {"encode_s": figures["encode.ms"] / 1e3, "first_token_s": figures["first_token_ms"] / 1e3}
        theirs["encode_s"] = statistics.median(encodes)
        theirs["first_token_s"] = statistics.median(one.prefill + (one.encode or 0) for one in times)
    return json.dumps(
        {
            "bundle": {"name": ours.name} | _rounded(mine),
            "peer": about | _rounded(theirs),
            "ratio": _rounded({name: mine[name] / theirs[name] for name in mine}),
            "prompt_tokens": ours.prompt_tokens,
            "new_tokens": new_tokens,
            "rounds": rounds,
            "machine": machine(),
        }
    )


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}
