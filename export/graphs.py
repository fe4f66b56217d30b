"""The torch modules as ONNX graphs, traced without weights.

Modules are built with unwritten memory for parameters, so that a graph of any size is traced in a few hundred
megabytes; `weights_file.py` streams the weights in afterwards.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch import Tensor, nn
from torch.export import Dim

from gar_edge.export.replay_graph import ir_version, replay_model
from gar_edge.models.config import GarConfig, Preprocessing, TextConfig
from gar_edge.models.llama import AppendingDecoder, Decoder
from gar_edge.models.ops import COMPAT_OPSET, OPSET
from gar_edge.models.vision import ByteEncoder
from gar_edge.models.weights import Maker, build_module, decoder_recipes, encoder_recipes

TOTAL = "past + length"  # the compat decoder's dimension of all positions
ROWS = "batch*selected"  # a decoder's dimension of all predictions


class Precision(str, Enum):
    """Number formats of a bundle. The quantised ones keep what is not quantised in float16."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"

    @property
    def quantised(self) -> bool:
        return self in (Precision.INT8, Precision.INT4, Precision.FP8)

    @property
    def torch(self) -> torch.dtype:
        """What float parameters are stored in."""
        return torch.float32 if self is Precision.FP32 else torch.float16

    @property
    def onnx(self) -> ir.DataType:
        return ir.DataType.FLOAT if self is Precision.FP32 else ir.DataType.FLOAT16

    @property
    def table(self) -> str:
        """Little-endian NumPy dtype of the token table."""
        return "|i1" if self.quantised else {Precision.FP32: "<f4", Precision.FP16: "<f2"}[self]


@dataclass(frozen=True)
class TracedGraph:
    """A graph whose parameters have a type and a shape but no values yet, and what makes these.

    aliases, appends: as in the manifest's `Graph`.
    """

    model: ir.Model
    recipes: Mapping[str, Maker]
    aliases: Mapping[str, str] = field(default_factory=dict)
    appends: Mapping[str, str] = field(default_factory=dict)


def trace_encoder(config: GarConfig, preprocessing: Preprocessing, precision: Precision) -> TracedGraph:
    """`pixels` uint8 [tiles,3,h,w], `mask` bool [tiles,1,h,w] -> `features` [tiles,P,C]."""
    side = config.vision.tile
    tiles = Dim("tiles", min=1, max=4096)
    model = _trace(
        build_module(lambda config: ByteEncoder(config, preprocessing), config, precision.torch),
        (torch.zeros(2, 3, side, side, dtype=torch.uint8), torch.zeros(2, 1, side, side, dtype=torch.bool)),
        ["pixels", "mask"],
        ["features"],
        ({0: tiles}, {0: tiles}),
        COMPAT_OPSET,
    )
    return TracedGraph(model, encoder_recipes(config))


def trace_replay(config: GarConfig, precision: Precision) -> TracedGraph:
    """`features` [tiles,P,C], `grid` [2], `boxes` [regions,4] -> `replayed` [regions,P,C]."""
    return TracedGraph(replay_model(config, precision.onnx), {})


def trace_decoder(config: GarConfig, precision: Precision, tied: bool) -> TracedGraph:
    """`inputs_embeds` [batch,length,C], caches [batch,KV,capacity,d] -> `logits` [batch*selected,V] and the caches."""
    text = config.text
    batch, length, selected = _positions(text)
    capacity = Dim("capacity", min=1, max=1 << 20)
    caches = cache_names(text)
    updated = [name + "_out" for name in caches]
    example = (
        torch.zeros(2, 3, text.hidden, dtype=precision.torch),
        torch.zeros(2, dtype=torch.int64),
        torch.ones(2, 1, 3, 8, dtype=torch.bool),
        torch.zeros(4, dtype=torch.int64),
        [torch.zeros(2, text.kv_heads, 8, text.head_dim, dtype=precision.torch) for _ in caches],
    )
    model = _trace(
        build_module(Decoder, text, precision.torch),
        example,
        ["inputs_embeds", "write_index", "attention_mask", "select", *caches],
        ["logits", "tokens", *updated],
        (
            {0: batch, 1: length},
            {0: batch},
            {0: batch, 2: length, 3: capacity},
            {0: selected},
            [{0: batch, 2: capacity}] * len(caches),
        ),
    )
    return TracedGraph(model, decoder_recipes(config, tied), dict(zip(updated, caches, strict=True)))


def trace_compat_decoder(config: GarConfig, precision: Precision, tied: bool) -> TracedGraph:
    """The decoder for engines of opset 20: caches [batch,past,KV,d] in, [batch,past+length,KV,d] out."""
    text = config.text
    batch, length, selected = _positions(text)
    past = Dim("past", min=0, max=1 << 20)
    ins, outs = past_names(text), present_names(text)
    example = (
        torch.zeros(2, 3, text.hidden, dtype=precision.torch),
        torch.zeros(2, dtype=torch.int64),
        torch.ones(2, 1, 3, 3 + 5, dtype=torch.bool),
        torch.zeros(4, dtype=torch.int64),
        [torch.zeros(2, 5, text.kv_heads, text.head_dim, dtype=precision.torch) for _ in ins],
    )
    model = _trace(
        build_module(AppendingDecoder, text, precision.torch),
        example,
        ["inputs_embeds", "position", "attention_mask", "select", *ins],
        ["logits", "tokens", *outs],
        (
            {0: batch, 1: length},
            {0: batch},
            {0: batch, 2: length, 3: Dim.DYNAMIC},  # torch has no name for the sum of two dimensions
            {0: selected},
            [{0: batch, 1: past}] * len(ins),
        ),
        COMPAT_OPSET,
    )
    _name_total(model.graph)
    return TracedGraph(model, decoder_recipes(config, tied), appends=dict(zip(outs, ins, strict=True)))


def _positions(text: TextConfig) -> tuple[Dim, Dim, Dim]:
    """The dimensions of what a decoder's run takes: sequences, new positions of each, those whose logits are wanted."""
    return Dim("batch", min=1, max=1024), Dim("length", min=1, max=text.context), Dim("selected", min=1, max=1 << 20)


def cache_names(text: TextConfig) -> list[str]:
    """The caches' names in the order in which the decoder takes them."""
    return _per_layer(text, "{}_cache_{}")


def past_names(text: TextConfig) -> list[str]:
    """The names of the caches that the compat decoder takes."""
    return _per_layer(text, "past_{}_{}")


def present_names(text: TextConfig) -> list[str]:
    """The names of the caches that the compat decoder returns, in the order of `past_names`."""
    return _per_layer(text, "present_{}_{}")


def _per_layer(text: TextConfig, name: str) -> list[str]:
    return [name.format(kind, layer) for layer in range(text.layers) for kind in ("key", "value")]


def _trace(
    module: nn.Module,
    example: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    dynamic: tuple[Any, ...],
    opset: int = OPSET,
) -> ir.Model:
    with _quiet():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=opset,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic,
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model
    _optimise(model, dict(module.named_parameters()))
    _name_inputs(model.graph)
    model.graph.name = type(module).__name__.lower()
    model.ir_version = min(model.ir_version, ir_version(opset))
    model.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()  # stack traces of this machine: useless elsewhere, and most of the file
    return model


def _optimise(model: ir.Model, parameters: Mapping[str, Tensor]) -> None:
    """Fold constants without ever touching a parameter: for the optimiser's eyes they are inputs."""
    graph = model.graph
    weights = [graph.initializers.pop(name) for name in list(graph.initializers) if name in parameters]
    count = len(graph.inputs)
    for value in weights:
        value.const_value = None
        graph.inputs.append(value)
    onnxscript.optimizer.optimize_ir(model)
    del graph.inputs[count:]
    for value in weights:
        assert value.name is not None
        graph.initializers[value.name] = value


def _name_total(graph: ir.Graph) -> None:
    """One name for the sum of past and length: the mask's last axis has a number for it, the presents a formula."""
    totals = {dim for value in graph.outputs if value.shape for dim in value.shape[1:2] if not isinstance(dim, int)}
    totals |= {dim for value in graph.inputs if value.shape for dim in value.shape[3:] if not isinstance(dim, int)}
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([TOTAL if dim in totals else dim for dim in value.shape])


def _name_inputs(graph: ir.Graph) -> None:
    """Name what a linear reads after the first that reads it: torch only numbers, and not alike in all precisions."""
    named: set[ir.Value] = set()
    for node in graph:
        if node.op_type in ("MatMul", "Gemm"):
            source, weight = node.inputs[:2]
            if weight is not None and weight.is_initializer() and source is not None and source not in named:
                source.name = f"{str(weight.name).removesuffix('.weight')}.input"
                named.add(source)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's remarks on torchvision and axis names are no news to a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
