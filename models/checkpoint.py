"""A GAR checkpoint: config, tensors, tokenizer and chat template, checked as a whole before anything is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from gar_edge.models.config import GarConfig, Preprocessing, parse_config, parse_preprocessing, read_json
from gar_edge.models.sizes import Size
from gar_edge.models.weights import HEAD, Shape, WeightSource, expected_shapes
from gar_edge.runtime.errors import GarCheckpointError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"

_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Checkpoint:
    """Everything an export needs. `origin` says where it came from, for people and for the manifest."""

    config: GarConfig
    preprocessing: Preprocessing
    weights: WeightSource
    tied: bool
    tokenizer_json: str
    chat_template: str
    stop_tokens: tuple[int, ...]
    begin_text: str
    name: str
    origin: str
    revision: str | None = None


class SafetensorsWeights:
    """The tensors of one or several safetensors files, memory-mapped and read one at a time."""

    def __init__(self, files: dict[str, Path], shapes: dict[str, Shape]) -> None:
        self._files = files
        self._shapes = shapes

    @classmethod
    def open(cls, folder: Path) -> SafetensorsWeights:
        """Index a checkpoint's shards; `GarCheckpointError` for a missing or truncated one."""
        files: dict[str, Path] = {}
        shapes: dict[str, Shape] = {}
        for shard in _shards(folder):
            for name, shape in _read_header(shard).items():
                if name in files:
                    raise GarCheckpointError(f"{shard}: tensor {name} is also in {files[name].name}")
                files[name], shapes[name] = shard, shape
        return cls(files, shapes)

    def names(self) -> Iterable[str]:
        return self._files.keys()

    def shape(self, name: str) -> Shape:
        return self._shapes[name]

    def tensor(self, name: str) -> Tensor:
        try:
            with safe_open(self._files[name], framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except (OSError, SafetensorError) as error:
            raise GarCheckpointError(f"{self._files[name]}: cannot read {name} ({error}); download it again") from None


def shipped_checkpoint(size: Size) -> Path:
    """The folder of a checkpoint that comes with the package."""
    return Path(__file__).parent / size.value / "checkpoint"


def open_checkpoint(folder: Path, name: str | None = None, revision: str | None = None) -> Checkpoint:
    """Read and check a folder in the released format (`config.json`, safetensors, tokenizer, chat template)."""
    if not folder.is_dir():
        raise GarCheckpointError(f"{folder}: no such folder; --checkpoint takes one with a config.json")
    raw = read_json(folder / CONFIG)
    config = parse_config(raw, str(folder / CONFIG))
    preprocessing = parse_preprocessing(read_json(folder / PREPROCESSOR), str(folder / PREPROCESSOR))
    if preprocessing.tile != config.vision.tile:
        raise GarCheckpointError(
            f"{folder}: {PREPROCESSOR} has tile_size {preprocessing.tile}, "
            f"but {CONFIG} has img_size {config.vision.tile}"
        )
    weights = SafetensorsWeights.open(folder)
    # A config may say tied where the tensors are not: the tensors decide.
    tied = HEAD not in set(weights.names())
    _check_tensors(weights, expected_shapes(config, tied), folder)
    tokens = read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).exists() else {}
    return Checkpoint(
        config=config,
        preprocessing=preprocessing,
        weights=weights,
        tied=tied,
        tokenizer_json=_read_text(folder / TOKENIZER),
        chat_template=_chat_template(folder, tokens),
        stop_tokens=_stop_tokens(folder, raw),
        begin_text=_token_text(tokens.get("bos_token"), "<|begin_of_text|>"),
        name=name or folder.resolve().name,
        origin=name or str(folder.resolve()),
        revision=revision,
    )


def _shards(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        raise GarCheckpointError(f"{folder}: neither {WEIGHTS} nor {INDEX}; the weights are missing")
    shards = [folder / name for name in shard_names(folder / INDEX)]
    missing = [shard.name for shard in shards if not shard.exists()]
    if missing:
        raise GarCheckpointError(
            f"{folder}: shards {', '.join(missing)} named in {INDEX} are missing; download them again"
        )
    return shards


def shard_names(index: Path) -> list[str]:
    """The file names in a checkpoint's index, sorted; plain names only, for what comes from a hub is not trusted."""
    mapping = read_json(index).get("weight_map")
    names = list(mapping.values()) if isinstance(mapping, dict) else []
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise GarCheckpointError(f"{index}: no weight_map from tensors to file names")
    return sorted(set(names))


def _read_header(shard: Path) -> dict[str, Shape]:
    """Names and shapes in a safetensors file, after checking that the file is as long as its header says."""
    try:
        with shard.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > shard.stat().st_size:
                raise ValueError("its header is cut off")
            header: dict[str, Any] = json.loads(file.read(size))
        header.pop("__metadata__", None)
        shapes = {name: tuple(int(n) for n in entry["shape"]) for name, entry in header.items()}
        kinds = {name: str(entry["dtype"]) for name, entry in header.items()}
        spans = {name: (int(entry["data_offsets"][0]), int(entry["data_offsets"][1])) for name, entry in header.items()}
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        reason = str(error) if isinstance(error, (OSError, ValueError)) else "its header is not one"
        raise GarCheckpointError(f"{shard}: not a whole safetensors file ({reason}); download it again") from None
    expected, found = 8 + size + max((end for _, end in spans.values()), default=0), shard.stat().st_size
    if expected != found:
        raise GarCheckpointError(f"{shard}: truncated or altered ({found} bytes of {expected}); download it again")
    for name, (begin, end) in spans.items():
        if kinds[name] not in _BYTES:
            raise GarCheckpointError(f"{shard}: tensor {name} has dtype {kinds[name]}, which GAR weights do not use")
        if math.prod(shapes[name]) * _BYTES[kinds[name]] != end - begin:
            raise GarCheckpointError(
                f"{shard}: tensor {name} has {end - begin} bytes, not those of {kinds[name]} {list(shapes[name])}; "
                "download it again"
            )
    return shapes


def _check_tensors(weights: WeightSource, expected: dict[str, Shape], folder: Path) -> None:
    found = set(weights.names())
    missing = sorted(expected.keys() - found)
    extra = sorted(found - expected.keys())
    misshaped = [
        f"{name} is {list(weights.shape(name))}, not {list(expected[name])}"
        for name in sorted(expected.keys() & found)
        if weights.shape(name) != expected[name]
    ]
    problems = []
    for kind, names in (("missing", missing), ("left over", extra), ("misshaped", misshaped)):
        if names:
            problems.append(f"{len(names)} {kind} ({_some(names)})")
    if problems:
        raise GarCheckpointError(f"{folder}: the tensors do not fit config.json: {'; '.join(problems)}")


def _some(names: list[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, …"


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GarCheckpointError(f"{path}: cannot be read ({error})") from None


def _chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> str:
    if (folder / CHAT_TEMPLATE).exists():
        return _read_text(folder / CHAT_TEMPLATE)
    if (folder / "chat_template.json").exists():  # transformers before 4.50
        template = read_json(folder / "chat_template.json").get("chat_template")
    else:
        template = tokenizer_config.get("chat_template")
    if not isinstance(template, str):
        raise GarCheckpointError(f"{folder}: no {CHAT_TEMPLATE}, and none in {TOKENIZER_CONFIG}")
    return template


def _stop_tokens(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    text = config["mllm_config"]["text_config"]
    generation = read_json(folder / GENERATION) if (folder / GENERATION).exists() else {}
    stops, where = generation.get("eos_token_id"), GENERATION
    if stops is None:
        stops, where = text.get("eos_token_id"), CONFIG
    if stops is None:
        raise GarCheckpointError(f"{folder}: no eos_token_id in {GENERATION} or {CONFIG}")
    stops = stops if isinstance(stops, list) else [stops]
    if not stops or not all(isinstance(stop, int) for stop in stops):
        raise GarCheckpointError(f"{folder / where}: eos_token_id is {stops}, not a token id or a list of them")
    return tuple(stops)


def _token_text(token: object, default: str) -> str:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else default
