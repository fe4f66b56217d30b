"""Quantisation sites and Q/DQ nodes: one site for every linear, nodes before products and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir
import pytest

from gar_edge.calibration.plan import Plan, Scheme, SitePlan
from gar_edge.calibration.qdq import insert_qdq
from gar_edge.calibration.rounding import block_of
from gar_edge.calibration.sites import HEAD, Site, decoder_sites, encoder_sites
from gar_edge.export import forms
from gar_edge.export.graphs import Precision
from gar_edge.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class Graphs:
    """A graph's two float forms, and its sites."""

    name: str
    forms: forms.Forms
    sites: list[Site]


@pytest.fixture(scope="module")
def graphs(checkpoint: Checkpoint) -> list[Graphs]:
    traced = forms.write_graphs(checkpoint, Precision.INT8)
    config = checkpoint.config
    return [
        Graphs("encoder", traced["encoder"], encoder_sites(config)),
        Graphs("decoder", traced["decoder"], decoder_sites(config, checkpoint.tied)),
    ]


def products(graph: ir.Graph, parameters: Iterable[str]) -> dict[str, ir.Node]:
    """The matrix products with a parameter, by its name."""
    found: dict[str, ir.Node] = {}
    for node in graph:
        names = {value.name for value in node.inputs if value is not None} & set(parameters)
        if node.op_type in ("MatMul", "Gemm") and names:
            (name,) = names
            assert name not in found
            found[name] = node
    return found


def test_every_linear_has_one_site(graphs: list[Graphs]) -> None:
    for one in graphs:
        parameters = one.forms.main.recipes
        weights = [weight for site in one.sites for weight in site.weights]
        assert max(Counter(weights).values()) == 1
        assert len({site.name for site in one.sites}) == len(one.sites)
        for form in (one.forms.main, *one.forms.by_engine.values()):
            nodes = products(form.model.graph, parameters)
            assert nodes.keys() == set(weights)
            for site in one.sites:
                assert site.name == site.linears[0]
                shared = {nodes[weight].inputs[0].name for weight in site.weights}
                assert len(shared) == 1
                for weight in site.weights:
                    shape = form.model.graph.initializers[weight].shape.numpy()
                    assert shape[1 if weight == HEAD else 0] == site.channels


def test_products_of_activations_have_none(graphs: list[Graphs], checkpoint: Checkpoint) -> None:
    """Attention's two products; the decoder's are inside its Attention nodes."""
    for one, expected in zip(graphs, (2 * checkpoint.config.vision.depth, 0), strict=True):
        kinds = Counter(node.op_type for node in one.forms.main.model.graph)
        weights = sum(len(site.linears) for site in one.sites)
        assert kinds["MatMul"] + kinds["Gemm"] == weights + expected


def mixed_plan(one: Graphs) -> Plan:
    """Every site int8 but one in float; in the decoder the second layer's are int4."""
    plans = {}
    for index, site in enumerate(one.sites):
        scheme = Scheme.INT4 if site.name.startswith("layers.1.") else Scheme.INT8
        plans[site.name] = SitePlan(site, Scheme.FLOAT if index == 2 else scheme, step=2.0**-index)
    return Plan(plans)


def signature(node: ir.Node) -> tuple[object, ...]:
    return (node.op_type, tuple(value.name if value else None for value in node.inputs),
            tuple(value.name for value in node.outputs), str(node.attributes))  # fmt: skip


@pytest.mark.parametrize("unsigned", [False, True])
def test_nodes_stand_before_products_and_nowhere_else(graphs: list[Graphs], unsigned: bool) -> None:
    for one in graphs:
        copy = one.forms.copy()
        traced = copy.by_engine["cpu"] if unsigned else copy.main
        graph, plan = traced.model.graph, mixed_plan(one)
        before = [signature(node) for node in graph]
        readers = products(graph, traced.recipes)
        inputs = {weight: node.inputs[0].name for weight, node in readers.items()}
        insert_qdq(traced.model, plan, unsigned)

        quantisers = {"QuantizeLinear", "DequantizeLinear"}
        after = {node.name: signature(node) for node in graph if node.op_type not in quantisers}
        assert len(after) == len(before)
        touched = {readers[w].name for p in plan.sites.values() if p.scheme is not Scheme.FLOAT for w in p.site.weights}
        assert {*before} - {*after.values()} <= {s for s in before if s[0] in ("MatMul", "Gemm")}
        assert len({*before} - {*after.values()}) == len(touched)
        for node in graph:
            if node.op_type in quantisers:
                consumers = {use.node.op_type for use in node.outputs[0].uses()}
                wanted = {"DequantizeLinear"} if node.op_type == "QuantizeLinear" else {"MatMul", "Gemm"}
                assert consumers
                assert consumers <= wanted
        kinds = Counter(node.op_type for node in graph)
        schemes = Counter(site.scheme for site in plan.sites.values())
        assert kinds["QuantizeLinear"] == schemes[Scheme.INT8]
        assert kinds["DequantizeLinear"] == schemes[Scheme.INT8] + len(touched)
        for site in plan.sites.values():
            check_site(graph, site, readers, inputs, unsigned)
        topological(graph)


def check_site(
    graph: ir.Graph, plan: SitePlan, readers: dict[str, ir.Node], inputs: dict[str, str], unsigned: bool
) -> None:
    nodes = [readers[weight] for weight in plan.site.weights]
    if plan.scheme is Scheme.FLOAT:
        for weight, node in zip(plan.site.weights, nodes, strict=True):
            assert [value.name for value in node.inputs] == [inputs[weight], weight]
            assert weight in graph.initializers
        return
    (source,) = {node.inputs[0] for node in nodes}  # one pair, shared
    if plan.scheme is Scheme.INT8:
        restored = source.producer()
        quantised = restored.inputs[0].producer()
        assert (restored.op_type, quantised.op_type) == ("DequantizeLinear", "QuantizeLinear")
        assert quantised.inputs[0].name == inputs[plan.site.weights[0]]
        assert list(quantised.inputs[1:]) == list(restored.inputs[1:])
        scale, zero = (value.const_value for value in quantised.inputs[1:])
        assert float(scale.numpy()) == plan.step
        assert scale.dtype is source.dtype
        assert (zero.dtype.name, int(zero.numpy())) == (("UINT8", 128) if unsigned else ("INT8", 0))
    else:
        assert source.name == inputs[plan.site.weights[0]]
    for weight, node in zip(plan.site.weights, nodes, strict=True):
        check_weight(graph, weight, node, plan)


def check_weight(graph: ir.Graph, weight: str, node: ir.Node, plan: SitePlan) -> None:
    restored = node.inputs[1].producer()
    assert restored.op_type == "DequantizeLinear"
    assert weight not in graph.initializers
    rows, columns = restored.inputs[0].shape.numpy()
    axis = 0 if weight == HEAD else 1
    attributes = {name: attribute.as_int() for name, attribute in restored.attributes.items()}
    if plan.scheme is Scheme.INT4:
        block = block_of(rows)
        assert (restored.inputs[0].dtype, attributes) == (ir.DataType.INT4, {"axis": 0, "block_size": block})
        assert restored.inputs[1].shape.numpy() == (rows // block, columns)
    else:
        assert (restored.inputs[0].dtype, attributes) == (ir.DataType.INT8, {"axis": axis})
        assert restored.inputs[1].shape.numpy() == ((rows, columns)[axis],)
    assert len(restored.inputs) == (3 if weight == HEAD else 2)
    assert all(value.name in graph.initializers for value in restored.inputs)


def topological(graph: ir.Graph) -> None:
    """Every value is made before it is read."""
    known = {*graph.inputs, *graph.initializers.values()}
    for node in graph:
        assert {value for value in node.inputs if value is not None} <= known
        known |= {*node.outputs}
