"""`gar.json`: everything about a bundle that code would otherwise have to guess."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gar_edge.runtime.files.validated import validated

SCHEMA = 5
FILE = "gar.json"


class GraphForm(str, Enum):
    """Other forms of the graphs that a bundle may have, by what takes them (`engine_graphs`).

    CPU: float32 and uint8 activations, for a quantised bundle on processors. COMPAT: for engines that know no newer
    operator than opset 20's.
    """

    CPU = "cpu"
    COMPAT = "compat"

    def __str__(self) -> str:
        return self.value


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
class ClipPrompt:
    """How a clip's frames stand in the prompt: a region is replayed from frame f through token `frame_tokens[f]`.

    The formats are the picture's, a region's .replay being the tokens of all frames that show it, in the frames' order.
    Frames behind the last that the tokenizer has a token for take that one again: what stands in their places is the
    same, for features replace every embedding there. The wording is not the released model's, which is not known.
    """

    frame_tokens: tuple[int, ...]
    frame_texts: tuple[str, ...]
    describe_format: str
    ask_format: str


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
    clip: ClipPrompt


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
        """The manifest as one kind of engine (a `GraphForm`) should see it: with its own form of a graph, if any."""
        return dataclasses.replace(self, graphs={**self.graphs, **self.engine_graphs.get(engine, {})})

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Build from parsed JSON; ValueError names the field that is missing or of a wrong type."""
        return validated(cls, value, FILE)
