"""`gar.json`: everything about a bundle that code would otherwise have to guess."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

SCHEMA = 4
FILE = "gar.json"


@dataclass(frozen=True)
class Preprocess:
    """`tile`: side in pixels; `max_tiles` beside the thumbnail.

    The encoder takes bytes, and computes (value * rescale - mean) / std per channel itself.
    """

    tile: int
    max_tiles: int
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_resampling: str = "bicubic-antialias"
    mask_resampling: str = "bicubic-antialias"


@dataclass(frozen=True)
class Replay:
    """Feature replay: `spatial_scale` multiplies the box in feature cells once more (1/28 in released checkpoints)."""

    spatial_scale: float
    sampling_ratio: int


@dataclass(frozen=True)
class Dimensions:
    """tile_tokens: P, tokens of a tile and of a region. hidden: C. context: longest sequence, in tokens."""

    tile_tokens: int
    hidden: int
    vocab: int
    layers: int
    kv_heads: int
    head_dim: int
    context: int


@dataclass(frozen=True)
class Prompt:
    """Ids and texts of the prompt; `regions[k]` is `<PromptK>`, replayed through token `replay_tokens[k]`.

    The formats are Jinja templates of the user's turn: `describe_format` takes `region` (with .name and .replay),
    `ask_format` takes `regions` and `question`. `default_region` is the number of a described region not numbered.
    """

    image_token: int
    replay_tokens: tuple[int, ...]
    replay_texts: tuple[str, ...]
    regions: tuple[str, ...]
    stop_tokens: tuple[int, ...]
    begin_text: str
    describe_format: str
    ask_format: str
    default_region: int


@dataclass(frozen=True)
class Port:
    """A graph's input or output: dims are numbers or names of what varies."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """One ONNX file and its signature. files: all that it reads, itself first.

    aliases: output -> input that it updates in place. appends: output -> input that it holds, and new positions behind.
    """

    files: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    appends: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FileEntry:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class TokenTable:
    """The embedding rows [vocab, hidden], little-endian, in `dtype`; memory-mapped and read by row.

    scales: a file of float16 [vocab] that integer rows are multiplied with; None for float rows.
    """

    file: str
    dtype: str
    scales: str | None = None


@dataclass(frozen=True)
class Source:
    """Where the weights came from."""

    name: str
    origin: str
    revision: str | None


@dataclass(frozen=True)
class Work:
    """Arithmetic of the graphs' products, a multiply-add counting as two.

    encoder_tile: of one tile. decoder_token: of one position of a prompt; attention, and what is done for wanted
    positions alone, left out.
    """

    encoder_tile: int
    decoder_token: int


@dataclass(frozen=True)
class Manifest:
    """A bundle's `gar.json`. `engine_graphs`: other forms of the graphs, by engine; they share the weights' files."""

    schema: int
    created_by: str
    name: str
    precision: str
    source: Source
    dimensions: Dimensions
    work: Work
    preprocess: Preprocess
    replay: Replay
    prompt: Prompt
    graphs: Mapping[str, Graph]
    token_table: TokenTable
    tokenizer: str
    chat_template: str
    files: Mapping[str, FileEntry]
    versions: Mapping[str, str]
    validation: Mapping[str, Any] | None = None
    engine_graphs: Mapping[str, Mapping[str, Graph]] = field(default_factory=dict)

    def for_engine(self, engine: str) -> Manifest:
        """The manifest as one kind of engine ("cpu") should see it: with its own form of a graph where there is one."""
        return dataclasses.replace(self, graphs={**self.graphs, **self.engine_graphs.get(engine, {})})

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Build from parsed JSON; ValueError names the field that is missing or of a wrong type."""
        return build(cls, value, FILE)


T = TypeVar("T")


def build(kind: type[T], value: Any, where: str) -> T:
    """A dataclass from a JSON object, checked field by field; unknown fields are ignored."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object, found {type(value).__name__}")
    hints = typing.get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for entry in dataclasses.fields(kind):  # type: ignore[arg-type]
        if entry.name in value:
            arguments[entry.name] = _convert(hints[entry.name], value[entry.name], f"{where}.{entry.name}")
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where}: no field {entry.name!r}")
    return kind(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """A JSON value as what a field's annotation says; ValueError where it is something else."""
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        kinds = [types.NoneType if kind is None else kind for kind in args]
        if isinstance(value, tuple(kind for kind in kinds if isinstance(kind, type))):
            return value
        (hint,) = (kind for kind in kinds if kind is not types.NoneType) if len(kinds) == 2 else (kinds[0],)
        return _convert(hint, value, where)
    if origin is tuple:
        return tuple(_convert(args[0], item, f"{where}[{i}]") for i, item in enumerate(_expect(list, value, where)))
    if origin is not None:  # Mapping[str, X]
        entries: dict[str, Any] = _expect(dict, value, where)
        return {key: _convert(args[1], item, f"{where}.{key}") for key, item in entries.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return _expect(hint, value, where)


def _expect(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}: expected {_JSON.get(kind, kind.__name__)}, found {type(value).__name__}")
    return value


_JSON: Mapping[type, str] = {list: "a list", dict: "an object"}
