"""The decoder's head as several products, none of which has more weights than a device will allocate in one piece.

A row of the head is a token, and a product of some rows computes these tokens' logits and nothing else: laid side by
side they are the whole head's, and the likeliest token is chosen among them as before. The weights stay where they are:
every product reads a part of the one tensor that lies in the bundle, a tied head's in the token table.
"""

from __future__ import annotations

import onnx_ir as ir

LOGITS = "logits"
PRODUCT_BYTES = 64 << 20  # most of one product's weights
_ROWS = 128  # products begin at multiples of it, so that weights of whole pages stay so


def split_head(graph: ir.Graph, most: int) -> None:
    """Rewrite the product behind `logits` in place where its weights are of more than `most` bytes.

    The graph's parameters are external data already. Types, scales and what reads the logits stay as they are.
    """
    logits = next(value for value in graph.outputs if value.name == LOGITS)
    whole = logits.producer()
    assert whole is not None
    weight = whole.inputs[1]
    assert weight is not None
    stored = _stored(weight)
    count = stored.shape.numpy()[0]
    rows = _rows(count, -(-stored.nbytes // count), most)
    if rows >= count:
        return
    nodes: list[ir.Node] = []
    parts: list[ir.Value] = []
    for index, begin in enumerate(range(0, count, rows)):
        end = min(begin + rows, count)
        part = _part(graph, weight, index, begin, end, nodes)
        product = _like(whole, [whole.inputs[0], part], index, end - begin)
        shape = logits.shape
        assert shape is not None
        product.outputs[0].shape = ir.Shape([*shape[:-1], end - begin])
        nodes.append(product)
        parts.append(product.outputs[0])
    joined = ir.Value(name=LOGITS, type=logits.type, shape=logits.shape)
    nodes.append(ir.Node("", "Concat", parts, [ir.AttrInt64("axis", 1)], outputs=[joined], name=f"{whole.name}_joined"))
    graph.insert_after(whole, nodes)
    graph.outputs[list(graph.outputs).index(logits)] = joined
    ir.convenience.replace_all_uses_with(logits, joined)
    logits.name = None  # the name is the joined ones'
    _remove(graph, whole)


def _rows(count: int, row_bytes: int, most: int) -> int:
    """Rows of one product, the same of all but the last."""
    fitting = max(most // row_bytes, 1)
    if fitting >= count:
        return count
    step = _ROWS if fitting >= _ROWS else 1
    fitting -= fitting % step
    even = -(-count // -(-count // fitting))
    return -(-even // step) * step


def _stored(weight: ir.Value) -> ir.ExternalTensor:
    """The parameter behind a weight that is read as it is, or through Cast or DequantizeLinear."""
    while (producer := weight.producer()) is not None:
        source = producer.inputs[0]
        assert source is not None
        weight = source
    assert isinstance(weight.const_value, ir.ExternalTensor)
    return weight.const_value


def _part(graph: ir.Graph, value: ir.Value, index: int, begin: int, end: int, nodes: list[ir.Node]) -> ir.Value:
    """Rows `begin` to `end` of a weight; the nodes between parameters and product are repeated, into `nodes`."""
    producer = value.producer()
    if producer is None:
        return _part_of_parameter(graph, value, index, begin, end)
    inputs = [None if one is None else _part(graph, one, index, begin, end, nodes) for one in producer.inputs]
    node = _like(producer, inputs, index, end - begin)
    nodes.append(node)
    return node.outputs[0]


def _part_of_parameter(graph: ir.Graph, value: ir.Value, index: int, begin: int, end: int) -> ir.Value:
    whole = value.const_value
    assert isinstance(whole, ir.ExternalTensor)
    count, *row = whole.shape.numpy()
    size, name, shape = whole.nbytes // count, f"{value.name}.{index}", ir.Shape([end - begin, *row])
    tensor = ir.ExternalTensor(
        whole.location, (whole.offset or 0) + begin * size, (end - begin) * size, whole.dtype,
        shape=shape, name=name, base_dir=whole.base_dir,
    )  # fmt: skip
    part = ir.Value(name=name, type=value.type, shape=shape, const_value=tensor)
    graph.initializers[name] = part
    return part


def _like(node: ir.Node, inputs: list[ir.Value | None], index: int, rows: int) -> ir.Node:
    """The same operation on some of the rows."""
    before = node.outputs[0]
    shape = None if before.shape is None else ir.Shape([rows, *before.shape[1:]])
    output = ir.Value(name=f"{before.name}.{index}", type=before.type, shape=shape)
    attributes = list(node.attributes.values())
    return ir.Node(node.domain, node.op_type, inputs, attributes, outputs=[output], name=f"{node.name}.{index}")


def _remove(graph: ir.Graph, node: ir.Node) -> None:
    """A node that nobody reads, and what then nobody reads of what it read."""
    sources = [value for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for value in sources:
        if value.uses() or value.is_graph_input():
            continue
        producer = value.producer()
        if producer is not None:
            _remove(graph, producer)
        elif value.name is not None:
            graph.initializers.pop(value.name, None)
