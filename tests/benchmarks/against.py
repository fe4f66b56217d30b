"""A bundle's decoder (and encoder) against others' of the same dimensions, on the processor, round by round in turn.

    python tests/benchmarks/against.py -m BUNDLE --peer genai-int8 --peer openvino-int8 --install

Every side is a process of its own that uses all cores, a new one in every round, and each round another begins: where
a process's memory happens to lie moves its decoding by 15 % for as long as it lives, and who comes behind another lies
better. Peers other than torch live in an environment of their own under `--home`, which `--install` makes, beside the
models that their own tools build there, once, of one random checkpoint.
All prefill as many tokens and decode as many greedily. In int4 genai's head has four bits, the bundle's has eight.
"""

from __future__ import annotations

import enum
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from llama import write_checkpoint
from rounds import Reply, Side, Speed, Work, cores

from gar_edge.models.config import TextConfig, parse_config
from gar_edge.models.sizes import Size
from gar_edge.runtime.bench.report import machine
from gar_edge.runtime.bundle.bundle import Bundle

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"
WARM_TOKENS = 256  # of the prompt that a side has behind it when it is measured


class Peer(str, enum.Enum):
    GENAI_INT8 = "genai-int8"
    GENAI_INT4 = "genai-int4"
    OPENVINO_INT8 = "openvino-int8"
    OPENVINO_INT8_BFLOAT16 = "openvino-int8-bfloat16"
    TORCH_FLOAT32 = "torch-float32"
    TORCH_BFLOAT16 = "torch-bfloat16"


@dataclass(frozen=True)
class Maker:
    """Tools that build models of checkpoints: their script, what their environment holds, and what it must not."""

    script: str
    packages: tuple[str, ...]
    unwanted: tuple[str, ...] = ()


GENAI = Maker("side_genai.py", ("onnxruntime-genai==0.18.0", "onnx-ir", "tqdm", TORCH, "transformers"))
# Its torchvision is of another build than torch's, and a decoder needs none.
OPENVINO = Maker("side_openvino.py", ("optimum-intel[openvino]==2.2.0", TORCH), ("torchvision",))


@dataclass(frozen=True)
class Built:
    """A model that a maker builds: with weights of `precision`, run with what `arguments` say."""

    maker: Maker
    precision: str
    arguments: tuple[str, ...] = ()


BUILT = {
    Peer.GENAI_INT8: Built(GENAI, "int8"),
    Peer.GENAI_INT4: Built(GENAI, "int4"),
    Peer.OPENVINO_INT8: Built(OPENVINO, "int8", ("float32",)),
    Peer.OPENVINO_INT8_BFLOAT16: Built(OPENVINO, "int8", ("bfloat16",)),
}


def command(peer: Peer, size: Size, home: Path, install: bool) -> list[str]:
    """What runs the peer's side; its environment and its model are made where they are missing."""
    built = BUILT.get(peer)
    if built is None:
        return [sys.executable, str(HERE / "side_torch.py"), size.value, peer.value.removeprefix("torch-")]
    name = Path(built.maker.script).stem
    environment = home / name
    python, script = str(environment / "bin" / "python"), str(HERE / built.maker.script)
    if not (environment / "made").exists():
        if not install:
            raise SystemExit(f"{peer.value} has no environment in {environment}: add --install.")
        _run([sys.executable, "-m", "venv", "--clear", str(environment)])
        _run([python, "-m", "pip", "install", "-q", *built.maker.packages])
        if built.maker.unwanted:
            _run([python, "-m", "pip", "uninstall", "-q", "-y", *built.maker.unwanted])
        (environment / "made").touch()
    model = home / f"{name}-{size.value}-{built.precision}"
    if not (model / "made").exists():
        with tempfile.TemporaryDirectory(dir=home) as checkpoint:
            write_checkpoint(_text(size), Path(checkpoint))
            _run([python, script, "build", checkpoint, str(model), built.precision])
        (model / "made").touch()
    return [python, script, "run", str(model), *built.arguments]


def _run(arguments: list[str]) -> None:
    subprocess.run(arguments, check=True, stdout=sys.stderr)


def _text(size: Size) -> TextConfig:
    return parse_config(size.preset.config()).text


def _figures(replies: list[Reply], first: list[Reply]) -> dict[str, Any]:
    """Medians of a side's rounds, and of the first side's over it, round by round: median, least and most."""
    peak = statistics.median(reply.peak for reply in replies)
    found: dict[str, Any] = {"version": replies[-1].version, "peak_mb": round(peak / 1e6)}
    for stage in ("encode", "prefill", "decode"):
        mine, others = ([_rate(reply.speed, stage) for reply in side] for side in (first, replies))
        pairs = [(one, other) for one, other in zip(mine, others, strict=True) if one and other]
        if not pairs:
            continue
        found[f"{stage}_per_s"] = round(statistics.median(other for _, other in pairs), 3)
        if replies is not first:
            ratios = sorted(one / other for one, other in pairs)
            found[f"{stage}_ratio"] = [round(value, 3) for value in (statistics.median(ratios), ratios[0], ratios[-1])]
    return found


def _rate(speed: Speed, stage: str) -> float | None:
    return {"encode": speed.encode, "prefill": speed.prefill, "decode": speed.decode}[stage]


def main(
    model: Annotated[Path, typer.Option("-m", "--model")],
    peer: Annotated[list[Peer], typer.Option(help="Whom to compare with; may be given several times.")],
    size: Annotated[Size, typer.Option()] = Size.B1,
    tiles: Annotated[int, typer.Option(min=0, help="Encoded first, by the sides that have an encoder.")] = 0,
    tokens: Annotated[int, typer.Option(min=1, help="Of the prompt; 4 tiles and a region of the 1B make 1843.")] = 1843,
    new_tokens: Annotated[int, typer.Option(min=2)] = 33,
    rounds: Annotated[int, typer.Option(min=1, help="Best a multiple of the sides.")] = 4,
    home: Annotated[Path | None, typer.Option(help="Folder of the peers' environments and models.")] = None,
    install: Annotated[bool, typer.Option("--install", help="Install what a peer needs into its environment.")] = False,
) -> None:
    """Print one JSON object: every side's tiles and tokens a second and peak memory, and the bundle's speed over it."""
    dims, text = Bundle.open(model).manifest.dimensions, _text(size)
    if (dims.hidden, dims.layers, dims.vocab) != (text.hidden, text.layers, text.vocab):
        raise SystemExit(f"{model} is not of --size {size.value}.")
    folder = home or Path(tempfile.gettempdir()) / "gar-edge-peers"
    folder.mkdir(parents=True, exist_ok=True)
    commands = {"bundle": [sys.executable, str(HERE / "side_bundle.py"), str(model)]}
    commands |= {one.value: command(one, size, folder, install) for one in peer}
    work = Work(tiles, tokens, new_tokens - 1)
    replies: dict[str, list[Reply]] = {name: [] for name in commands}
    warm = Work(min(tiles, 1), min(tokens, WARM_TOKENS), 2)
    names = [*commands]
    for number in range(rounds):
        for index in range(len(names)):
            name = names[(number + index) % len(names)]
            with Side(name, commands[name]) as side:
                side.round(warm)
                replies[name].append(side.round(work))
    report = {
        "sides": {name: _figures(found, replies["bundle"]) for name, found in replies.items()},
        "work": vars(work),
        "rounds": rounds,
        "threads": cores(),
        "machine": machine(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    typer.run(main)
