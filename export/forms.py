"""The graphs of a bundle, and the other forms that one kind of engine needs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gar_edge.calibration.plan import Plan
from gar_edge.calibration.qdq import insert_qdq, store_as_half
from gar_edge.export.graphs import (
    OpenGraph,
    Precision,
    capture_compat_decoder,
    capture_decoder,
    capture_encoder,
    write_replay,
)
from gar_edge.models.checkpoint import Checkpoint
from gar_edge.models.weights import Recipe, decoder_recipes, encoder_recipes
from gar_edge.runtime.bundle.manifest import GraphForm


@dataclass(frozen=True)
class Forms:
    """One graph: as most engines take it, and by engine where one takes another form. They share all parameters."""

    main: OpenGraph
    by_engine: Mapping[str, OpenGraph] = field(default_factory=dict)

    def copy(self) -> Forms:
        """A copy of the graphs, to be rewritten freely."""
        copies = {engine: replace(form, model=form.model.clone()) for engine, form in self.by_engine.items()}
        return Forms(replace(self.main, model=self.main.model.clone()), copies)


def write_graphs(checkpoint: Checkpoint, precision: Precision, compat: bool = False) -> dict[str, Forms]:
    """The three graphs in float. Where they are to be quantised, a float32 form for CPUs beside the float16 one.

    compat: the decoder also in the form for engines that know no newer operator than opset 20's.
    """
    config, tied = checkpoint.config, checkpoint.tied
    encoder, decoder = capture_encoder(config, checkpoint.preprocessing), capture_decoder(config, tied)

    def graphs(precision: Precision) -> dict[str, OpenGraph]:
        return {
            "encoder": encoder.graph(precision),
            "roi_replay": write_replay(config, precision),
            "decoder": decoder.graph(precision),
        }

    for_cpu = graphs(Precision.FP32) if precision.quantised else {}
    captured = {
        name: Forms(graph, {GraphForm.CPU: for_cpu[name]} if for_cpu else {})
        for name, graph in graphs(precision).items()
    }
    if compat:
        form, forms = capture_compat_decoder(config, tied).graph(precision), captured["decoder"]
        captured["decoder"] = Forms(forms.main, {**forms.by_engine, GraphForm.COMPAT: form})
    return captured


def quantise(captured: Mapping[str, Forms], checkpoint: Checkpoint, plans: Mapping[str, Plan]) -> dict[str, Forms]:
    """The graphs of `plans` with Q/DQ nodes and smoothed, rounded parameters; the given ones are used up."""
    recipes: dict[str, dict[str, Recipe]] = {
        "encoder": encoder_recipes(checkpoint.config),
        "decoder": decoder_recipes(checkpoint.config, checkpoint.tied),
    }
    quantised = dict(captured)
    for name, plan in plans.items():
        forms, makers = captured[name], plan.parameters(recipes[name])
        insert_qdq(forms.main.model, plan, unsigned=False)
        for engine, form in forms.by_engine.items():
            insert_qdq(form.model, plan, unsigned=engine == GraphForm.CPU)
        store_as_half(forms.by_engine[GraphForm.CPU].model, makers)
        by_engine = {engine: replace(form, recipes=makers) for engine, form in forms.by_engine.items()}
        quantised[name] = Forms(replace(forms.main, recipes=makers), by_engine)
    return quantised
