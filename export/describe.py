"""What the manifest says of a checkpoint: dimensions, preprocessing, prompt, graphs."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version

import onnx_ir as ir
from tokenizers import Tokenizer

from gar_edge.export.graphs import OpenGraph, Precision
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.config import GarConfig
from gar_edge.models.replay import SAMPLES
from gar_edge.runtime.bundle.manifest import (
    SCHEMA,
    ClipPrompt,
    Dimensions,
    FileEntry,
    Graph,
    Manifest,
    Port,
    Preprocess,
    Prompt,
    Replay,
    Source,
    TokenTable,
    Work,
)
from gar_edge.runtime.errors import GarCheckpointError, GarPromptError
from gar_edge.runtime.generate.prompt import PromptBuilder

# The released demos' wording (gar_with_mask.py, gar_relationship.py), with Jinja in the variable places.
DESCRIBE_FORMAT = (
    "There are some objects I am curious about: {{ region.name }};\n"
    "{{ region.name }}: {{ region.replay }}Describe this masked region in detail."
)
ASK_FORMAT = (
    "There are some objects I am curious about: {% for region in regions %}{{ region.name }}; {% endfor %}\n"
    "{% for region in regions %}{{ region.name }}: {{ region.replay }}\n{% endfor %}\n"
    "{{ question }}"
)
DEFAULT_REGION = 1  # the released demo describes its region as <Prompt1>

TOKEN_TABLE = "token_table.bin"
TOKEN_SCALES = "token_scales.bin"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
_TOOLS = ("gar-edge", "torch", "onnx", "onnx-ir")


def make_manifest(
    checkpoint: Checkpoint,
    precision: Precision,
    max_tiles: int | None,
    graphs: Mapping[str, Graph],
    files: Mapping[str, FileEntry],
    engine_graphs: Mapping[str, Mapping[str, Graph]],
) -> Manifest:
    """The manifest of a bundle; `max_tiles` replaces the checkpoint's limit."""
    config = checkpoint.config
    return Manifest(
        schema=SCHEMA,
        created_by=f"gar-edge {version('gar-edge')}",
        name=f"{checkpoint.name}-{precision.value}",
        precision=precision.value,
        source=Source(checkpoint.name, checkpoint.origin, checkpoint.revision),
        dimensions=Dimensions(
            tile_tokens=config.tile_tokens,
            hidden=config.text.hidden,
            vocab=config.text.vocab,
            layers=config.text.layers,
            kv_heads=config.text.kv_heads,
            head_dim=config.text.head_dim,
            context=config.text.context,
        ),
        work=describe_work(config),
        preprocess=describe_pixels(checkpoint, max_tiles),
        replay=Replay(config.replay_spatial_scale, SAMPLES),
        prompt=describe_prompt(checkpoint),
        graphs=graphs,
        token_table=TokenTable(TOKEN_TABLE, precision.table, TOKEN_SCALES if precision.quantised else None),
        tokenizer=TOKENIZER,
        chat_template=CHAT_TEMPLATE,
        files=files,
        engine_graphs=engine_graphs,
        versions={"python": platform.python_version()} | {tool: version(tool) for tool in _TOOLS},
    )


def describe_work(config: GarConfig) -> Work:
    """Count the products of encoder and decoder layers."""
    vision, text = config.vision, config.text
    patches = vision.grid**2
    tokens = patches + int(vision.class_token)
    linears = 4 * vision.dim**2 + 2 * vision.dim * vision.mlp
    encoder = (
        patches * 3 * vision.patch**2 * vision.dim
        + vision.depth * (tokens * linears + 2 * tokens**2 * vision.dim)
        + patches * vision.dim * text.hidden
        + config.tile_tokens * text.hidden**2
    )
    head = text.hidden * text.head_dim
    layer = head * 2 * (text.heads + text.kv_heads) + 3 * text.hidden * text.ffn
    last = head * (text.heads + 2 * text.kv_heads)  # queries, keys and values; the rest is for wanted positions alone
    return Work(2 * encoder, 2 * ((text.layers - 1) * layer + last))


def describe_pixels(checkpoint: Checkpoint, max_tiles: int | None) -> Preprocess:
    """How pictures are cut and normalised; `max_tiles` replaces the checkpoint's limit."""
    pixels = checkpoint.preprocessing
    most = pixels.max_tiles if max_tiles is None else max_tiles
    return Preprocess(pixels.tile, most, pixels.rescale, pixels.mean, pixels.std)


def describe_prompt(checkpoint: Checkpoint) -> Prompt:
    """Token ids and texts, after checking that tokenizer and config mean the same."""
    config = checkpoint.config
    try:
        tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise GarCheckpointError(f"{checkpoint.origin}: tokenizer.json cannot be read ({error})") from None
    if tokenizer.get_vocab_size() > config.text.vocab:
        raise GarCheckpointError(
            f"{checkpoint.origin}: the tokenizer has {tokenizer.get_vocab_size()} tokens, "
            f"the token table {config.text.vocab}"
        )

    def text_of(token: int, what: str) -> str:
        text = tokenizer.id_to_token(token)
        if text is None:
            raise GarCheckpointError(f"{checkpoint.origin}: the tokenizer has no token {token} ({what})")
        return text

    if text_of(config.image_token, "image") not in checkpoint.chat_template:
        raise GarCheckpointError(f"{checkpoint.origin}: the chat template never writes the image token")
    regions = tuple(f"<Prompt{k}>" for k in range(len(config.replay_tokens)))
    missing = [name for name in regions if tokenizer.token_to_id(name) is None]
    if missing:
        raise GarCheckpointError(
            f"{checkpoint.origin}: the tokenizer has no {', '.join(missing)}; is this a GAR tokenizer?"
        )
    prompt = Prompt(
        image_token=config.image_token,
        replay_tokens=config.replay_tokens,
        replay_texts=tuple(text_of(token, "replay") for token in config.replay_tokens),
        regions=regions,
        stop_tokens=checkpoint.stop_tokens,
        begin_text=checkpoint.begin_text,
        describe_format=DESCRIBE_FORMAT,
        ask_format=ASK_FORMAT,
        default_region=min(DEFAULT_REGION, len(regions) - 1),
        clip=_describe_clip(tokenizer, config),
    )
    try:  # a template that this runtime cannot render should fail here, not on the robot
        PromptBuilder(prompt, config.tile_tokens, tokenizer, checkpoint.chat_template).build(None, [0], 2)
    except GarPromptError as error:
        raise GarCheckpointError(f"{checkpoint.origin}: {error}") from None
    return prompt


def _describe_clip(tokenizer: Tokenizer, config: GarConfig) -> ClipPrompt:
    """Frame f is replayed through `<|reserved_special_token_{2+f}|>`, counted on from region 0's token.

    Only as many as fit the context: a frame that shows a region takes the tokens of two tiles. The wording is the
    picture's, for the released one is not known.
    """
    number = re.compile(r"\d+")
    tokens: dict[str, int] = {}
    text = str(tokenizer.id_to_token(config.replay_tokens[0]))
    most = config.text.context // (2 * config.tile_tokens)
    while (token := tokenizer.token_to_id(text)) is not None and text not in tokens and len(tokens) < most:
        tokens[text] = token
        text = number.sub(lambda found: str(int(found[0]) + 1), text)
    return ClipPrompt(tuple(tokens.values()), tuple(tokens), DESCRIBE_FORMAT, ASK_FORMAT)


def describe_graph(graph: OpenGraph, files: tuple[str, ...]) -> Graph:
    """A graph's signature for the manifest."""
    inputs, outputs = graph.model.graph.inputs, graph.model.graph.outputs
    return Graph(files, tuple(ports(inputs)), tuple(ports(outputs)), dict(graph.aliases), dict(graph.appends))


def ports(values: Iterable[ir.Value]) -> list[Port]:
    """Name, type and shape of a graph's inputs or outputs."""
    return [_port(value) for value in values]


_DTYPES = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.INT64: "int64",
    ir.DataType.UINT8: "uint8",
    ir.DataType.BOOL: "bool",
}


def _port(value: ir.Value) -> Port:
    assert value.name is not None
    assert value.shape is not None
    assert value.dtype is not None
    shape = tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)
    return Port(value.name, _DTYPES[value.dtype], shape)
