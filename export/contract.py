"""What every graph of a bundle takes and gives, and whether the written files keep to it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from gar_edge.export.describe import ports
from gar_edge.export.graphs import ROWS, TOTAL, cache_names, past_names, present_names
from gar_edge.models.config import GarConfig
from gar_edge.runtime.bundle.manifest import Manifest, Port

Ports = tuple[list[Port], list[Port]]  # inputs, outputs


def broken_contract(config: GarConfig, manifest: Manifest, folder: Path) -> str | None:
    """What is wrong with the written files' inputs and outputs, or with the manifest's account of them; None: nothing.

    Every engine's form of the graphs is looked at.
    """
    for engine in ("", *manifest.engine_graphs):
        view = manifest.for_engine(engine)
        decoder = view.graphs["decoder"]
        dtype = next(port.dtype for port in decoder.inputs if port.name == "inputs_embeds")
        for name, wanted in expected_ports(config, dtype, bool(decoder.appends)).items():
            graph = view.graphs[name]
            written = ir.load(folder / graph.files[0]).graph
            for expected, said, values in (
                (wanted[0], graph.inputs, written.inputs),
                (wanted[1], graph.outputs, written.outputs),
            ):
                found = ports(values)
                if sorted(found, key=str) != sorted(expected, key=str) or list(said) != found:
                    odd = sorted({str(port) for port in found} ^ {str(port) for port in expected})
                    return f"{graph.files[0]} is not as specified: {'; '.join(odd[:3])}"
    return None


def expected_ports(config: GarConfig, dtype: str, appending: bool = False) -> dict[str, Ports]:
    """Every graph's inputs and outputs for these dimensions; `appending` chooses the decoder's compat form."""
    side, tokens, hidden = config.vision.tile, config.tile_tokens, config.text.hidden
    return {
        "encoder": (
            [Port("pixels", "uint8", ("tiles", 3, side, side)), Port("mask", "bool", ("tiles", 1, side, side))],
            [Port("features", dtype, ("tiles", tokens, hidden))],
        ),
        "roi_replay": (
            [
                Port("features", dtype, ("tiles", tokens, hidden)),
                Port("grid", "int64", (2,)),
                Port("boxes", "float32", ("regions", 4)),
            ],
            [Port("replayed", dtype, ("regions", tokens, hidden))],
        ),
        "decoder": _compat_decoder(config, dtype) if appending else _decoder(config, dtype),
    }


def _decoder(config: GarConfig, dtype: str) -> Ports:
    text = config.text
    cache, names = ("batch", text.kv_heads, "capacity", text.head_dim), cache_names(text)
    return (
        [
            Port("inputs_embeds", dtype, ("batch", "length", text.hidden)),
            Port("write_index", "int64", ("batch",)),
            Port("attention_mask", "bool", ("batch", 1, "length", "capacity")),
            Port("select", "int64", ("selected",)),
            *(Port(name, dtype, cache) for name in names),
        ],
        [
            Port("logits", dtype, (ROWS, text.vocab)),
            Port("tokens", "int64", (ROWS,)),
            *(Port(name + "_out", dtype, cache) for name in names),
        ],
    )


def _compat_decoder(config: GarConfig, dtype: str) -> Ports:
    text = config.text
    state = (text.kv_heads, text.head_dim)
    return (
        [
            Port("inputs_embeds", dtype, ("batch", "length", text.hidden)),
            Port("position", "int64", ("batch",)),
            Port("attention_mask", "bool", ("batch", 1, "length", TOTAL)),
            Port("select", "int64", ("selected",)),
            *(Port(name, dtype, ("batch", "past", *state)) for name in past_names(text)),
        ],
        [
            Port("logits", dtype, (ROWS, text.vocab)),
            Port("tokens", "int64", (ROWS,)),
            *(Port(name, dtype, ("batch", TOTAL, *state)) for name in present_names(text)),
        ],
    )
