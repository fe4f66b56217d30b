"""The torch modules as ONNX graphs, captured without weights.

Modules are built with unwritten memory for parameters, so that a graph of any size is captured in a few hundred
megabytes; `weights_file.py` streams the weights in afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import onnx_ir as ir
import torch
from torch import nn
from torch.export import Dim

from gar_edge.export.lowering import CAPTURED, Axis, Input, Program, capture, lower
from gar_edge.export.replay_graph import ir_version, replay_model
from gar_edge.models.config import GarConfig, Preprocessing, TextConfig
from gar_edge.models.llama import AppendingDecoder, Decoder
from gar_edge.models.ops import COMPAT_OPSET, OPSET
from gar_edge.models.vision import ByteEncoder
from gar_edge.models.weights import Maker, build_module, decoder_recipes, encoder_recipes

TOTAL = "past + length"  # the compat decoder's dimension of all positions
ROWS = "batch*selected"  # a decoder's dimension of all predictions
IR_VERSION = 10  # of files: opset 24 came with a newer one, but nothing in these graphs needs it


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
class OpenGraph:
    """A graph whose parameters have a type and a shape but no values yet, and what makes these.

    aliases, appends: as in the manifest's `Graph`.
    """

    model: ir.Model
    recipes: Mapping[str, Maker]
    aliases: Mapping[str, str] = field(default_factory=dict)
    appends: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Captured:
    """A torch module captured once, of which `graph` writes a graph in any precision.

    build: makes the module with parameters of a type, unwritten. recipes, aliases, appends: as in `OpenGraph`.
    """

    program: Program
    build: Callable[[torch.dtype], nn.Module]
    opset: int
    recipes: Mapping[str, Maker]
    aliases: Mapping[str, str] = field(default_factory=dict)
    appends: Mapping[str, str] = field(default_factory=dict)

    def graph(self, precision: Precision) -> OpenGraph:
        """The graph in a precision's type of float."""
        graph = lower(self.program, self.build(precision.torch), precision.onnx, self.opset)
        _name_inputs(graph)
        model = ir.Model(graph, ir_version=min(ir_version(self.opset), IR_VERSION), producer_name="gar-edge")
        return OpenGraph(model, self.recipes, self.aliases, self.appends)


def capture_encoder(config: GarConfig, preprocessing: Preprocessing) -> Captured:
    """`pixels` uint8 [tiles,3,h,w], `mask` bool [tiles,1,h,w] -> `features` [tiles,P,C]."""
    side = config.vision.tile
    inputs = {
        "pixels": Input(torch.uint8, ("tiles", 3, side, side)),
        "mask": Input(torch.bool, ("tiles", 1, side, side)),
    }
    axes = {"tiles": Axis(2, Dim("tiles", min=1, max=4096))}

    def build(dtype: torch.dtype) -> nn.Module:
        return build_module(lambda config: ByteEncoder(config, preprocessing), config, dtype)

    program = capture(build(CAPTURED), inputs, axes, ["features"])
    return Captured(program, build, COMPAT_OPSET, encoder_recipes(config))


def write_replay(config: GarConfig, precision: Precision) -> OpenGraph:
    """`features` [tiles,P,C], `grid` [2], `boxes` [regions,4] -> `replayed` [regions,P,C]."""
    return OpenGraph(replay_model(config, precision.onnx), {})


def capture_decoder(config: GarConfig, tied: bool) -> Captured:
    """`inputs_embeds` [batch,length,C], caches [batch,KV,capacity,d] -> `logits` [batch*selected,V] and the caches."""
    text, caches = config.text, cache_names(config.text)
    updated = [name + "_out" for name in caches]
    inputs = {
        "inputs_embeds": Input(CAPTURED, ("batch", "length", text.hidden)),
        "write_index": Input(torch.int64, ("batch",)),
        "attention_mask": Input(torch.bool, ("batch", 1, "length", "capacity")),
        "select": Input(torch.int64, ("selected",)),
        **dict.fromkeys(caches, Input(CAPTURED, ("batch", text.kv_heads, "capacity", text.head_dim))),
    }
    axes = {**_axes(text), "capacity": Axis(8, Dim("capacity", min=1, max=1 << 20))}
    program = capture(
        _decoder(Decoder, text)(CAPTURED), inputs, axes, ["logits", "tokens", *updated], listed=len(caches)
    )
    aliases = dict(zip(updated, caches, strict=True))
    return Captured(program, _decoder(Decoder, text), OPSET, decoder_recipes(config, tied), aliases=aliases)


def capture_compat_decoder(config: GarConfig, tied: bool) -> Captured:
    """The decoder for engines of opset 20: caches [batch,past,KV,d] in, [batch,past+length,KV,d] out."""
    text, ins, outs = config.text, past_names(config.text), present_names(config.text)
    inputs = {
        "inputs_embeds": Input(CAPTURED, ("batch", "length", text.hidden)),
        "position": Input(torch.int64, ("batch",)),
        "attention_mask": Input(torch.bool, ("batch", 1, "length", TOTAL)),
        "select": Input(torch.int64, ("selected",)),
        **dict.fromkeys(ins, Input(CAPTURED, ("batch", "past", text.kv_heads, text.head_dim))),
    }
    axes = _axes(text)
    past = 5
    axes["past"] = Axis(past, Dim("past", min=0, max=1 << 20))
    axes[TOTAL] = Axis(past + axes["length"].example, Dim.DYNAMIC)  # torch has no name for the sum of two dimensions
    build = _decoder(AppendingDecoder, text)
    program = capture(build(CAPTURED), inputs, axes, ["logits", "tokens", *outs], listed=len(ins))
    appends = dict(zip(outs, ins, strict=True))
    return Captured(program, build, COMPAT_OPSET, decoder_recipes(config, tied), appends=appends)


def _decoder(kind: type[Decoder], text: TextConfig) -> Callable[[torch.dtype], nn.Module]:
    return lambda dtype: build_module(kind, text, dtype)


def _axes(text: TextConfig) -> dict[str, Axis]:
    """What a decoder's run takes: sequences, new positions of each, those whose logits are wanted."""
    return {
        "batch": Axis(2, Dim("batch", min=1, max=1024)),
        "length": Axis(3, Dim("length", min=1, max=text.context)),
        "selected": Axis(4, Dim("selected", min=1, max=1 << 20)),
    }


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


def _name_inputs(graph: ir.Graph) -> None:
    """Name what a linear reads after the first that reads it: torch only numbers."""
    named: set[ir.Value] = set()
    for node in graph:
        if node.op_type in ("MatMul", "Gemm"):
            source, weight = node.inputs[:2]
            if weight is not None and weight.is_initializer() and source is not None and source not in named:
                source.name = f"{str(weight.name).removesuffix('.weight')}.input"
                named.add(source)
