"""Captured modules as graphs: each rule gives what torch gives, in both types of float, at sizes not captured at."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from gar_edge.export.lowering import CAPTURED, Axis, Input, Program, capture, lower
from gar_edge.models import ops
from gar_edge.models.layers import RMSNorm
from gar_edge.runtime.errors import GarExportError

AXES = {"batch": Axis(2, Dim("batch", min=1, max=64)), "length": Axis(3, Dim("length", min=1, max=64))}
RUN = {"batch": 5, "length": 7}
FLOATS = {torch.float16: ir.DataType.FLOAT16, torch.float32: ir.DataType.FLOAT}
TENSOR: Mapping[str, Input] = {"x": Input(CAPTURED, ("batch", "length", 8))}
BYTES: Mapping[str, Input] = {"x": Input(torch.uint8, ("batch", 3, 8, 8))}
FLAGS: Mapping[str, Input] = {"x": Input(torch.bool, ("batch", 1, "length", 8))}
NUMBERS: Mapping[str, Input] = {"x": Input(CAPTURED, ("batch", "length", 8)), "index": Input(torch.int64, ("batch",))}


class Module(nn.Module):
    """A function of inputs and one weight [8,8]."""

    def __init__(self, function: Callable[..., Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.function = function
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(8, 8, generator=generator).to(dtype), requires_grad=False)
        self.register_buffer("third", torch.tensor([1 / 3] * 8).to(dtype))

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        return self.function(self, x) if index is None else self.function(self, x, index)


def patches(module: Module, x: Tensor) -> Tensor:
    weight = module.weight[:, :3].unsqueeze(2).unsqueeze(3).expand(8, 3, 2, 2)
    return F.conv2d(x.to(weight.dtype), weight, stride=2)


def biased(module: Module, x: Tensor) -> Tensor:
    weight = module.weight[:, :3].unsqueeze(2).unsqueeze(3).expand(8, 3, 2, 2)
    return F.conv2d(x.to(weight.dtype), weight, module.third, stride=2)


def norms(module: Module, x: Tensor) -> Tensor:
    x = x.unsqueeze(-2) * module.weight
    return F.layer_norm(x, (8, 8), module.weight, module.weight) + F.rms_norm(x, (8, 8), module.weight, 1e-5)


def attention(module: Module, x: Tensor) -> Tensor:
    x = x.unsqueeze(1)
    return F.scaled_dot_product_attention(x, x, x, attn_mask=x @ x.transpose(-1, -2))


def positions(module: Module, x: Tensor) -> Tensor:
    return torch.arange(x.shape[1]).unsqueeze(0) + 1


CASES: dict[str, tuple[Mapping[str, Input], Callable[..., Tensor], list[str]]] = {
    "product": (TENSOR, lambda m, x: x @ m.weight, ["MatMul"]),
    "scalar": (TENSOR, lambda m, x: x * 0.3 + 1 - x, ["Mul", "Add", "Sub"]),
    "buffer": (TENSOR, lambda m, x: x * m.third, ["Mul"]),
    "rows": (TENSOR, lambda m, x: F.linear(x.flatten(0, 1), m.weight), ["Reshape", "Gemm"]),
    "reshapes": (TENSOR, lambda m, x: x.unflatten(-1, (2, 4)).flatten(1, 2).unflatten(2, (2, 2)), ["Reshape"]),
    "interleave -2": (
        TENSOR,
        lambda m, x: x.repeat_interleave(3, dim=-2),
        ["Unsqueeze", "Tile", "Reshape"],
    ),
    "norms of two axes": (TENSOR, norms, ["Unsqueeze", "Mul", "LayerNormalization", "RMSNormalization", "Add"]),
    "patches with a bias": (BYTES, biased, ["Slice", "Unsqueeze", "Unsqueeze", "Expand", "Cast", "Conv"]),
    "from behind": (TENSOR, lambda m, x: x.permute(-1, 0, -2), ["Transpose"]),
    "turned": (TENSOR, lambda m, x: x.transpose(-1, 0).permute(2, 0, 1), ["Transpose", "Transpose"]),
    "parts": (TENSOR, lambda m, x: torch.cat([*x.chunk(2, dim=-1)[::-1], x], dim=-1), ["Split", "Concat"]),
    "slice": (TENSOR, lambda m, x: x[..., 1:], ["Slice"]),
    "mean": (TENSOR, lambda m, x: x.float().mean(dim=(0, 2)), ["ReduceMean"]),
    "softmax": (TENSOR, lambda m, x: torch.softmax(x, dim=-1), ["Softmax"]),
    "argmax": (TENSOR, lambda m, x: x.argmax(-1), ["ArgMax"]),
    "silu": (TENSOR, lambda m, x: F.silu(x), ["Sigmoid", "Mul"]),
    "gelu": (TENSOR, lambda m, x: F.gelu(x), ["Gelu"]),
    "angles": (TENSOR, lambda m, x: x.cos() + x.sin(), ["Cos", "Sin", "Add"]),
    "layer norm, coarse": (TENSOR, lambda m, x: F.layer_norm(x, (8,), m.third, m.third, 0.1), ["LayerNormalization"]),
    "layer norm": (TENSOR, lambda m, x: F.layer_norm(x, (8,), m.third, m.third, 1e-5), ["LayerNormalization"]),
    "rms norm": (TENSOR, lambda m, x: F.rms_norm(x, (8,), m.third, 1e-5), ["RMSNormalization"]),
    "repeat": (TENSOR, lambda m, x: x.repeat(1, 3, 1), ["Tile"]),
    "interleave": (TENSOR, lambda m, x: x.repeat_interleave(3, dim=1), ["Unsqueeze", "Tile", "Reshape"]),
    "expand": (TENSOR, lambda m, x: m.weight.expand(x.shape[0], -1, -1), ["Shape", "Concat", "Expand"]),
    "range": (TENSOR, positions, ["Shape", "Squeeze", "Range", "Unsqueeze", "Add"]),
    "pixels": (BYTES, lambda m, x: x.float() * 0.5, ["Cast", "Mul"]),
    "patches": (BYTES, patches, ["Slice", "Unsqueeze", "Unsqueeze", "Expand", "Cast", "Conv"]),
    "bias": (FLAGS, lambda m, x: torch.where(x, 0.0, -7.5).to(m.weight.dtype), ["Where", "Cast"]),
    "chosen": (NUMBERS, lambda m, x, index: x.index_select(1, index), ["Gather"]),
    "attention": (TENSOR, attention, ["Unsqueeze", "Transpose", "MatMul", "Attention"]),
}
# Where the dtype is already the one asked for, nothing is written.
IN_FULL = {"mean": ["ReduceMean"], "bias": ["Where"]}


def captured(inputs: Mapping[str, Input], function: Callable[..., Tensor]) -> Program:
    return capture(Module(function, CAPTURED), inputs, AXES, ["y"])


def feeds(inputs: Mapping[str, Input], dtype: torch.dtype) -> dict[str, Tensor]:
    """Random inputs, larger than those it was captured with."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, tensor in inputs.items():
        shape = [RUN[dim] if isinstance(dim, str) else dim for dim in tensor.shape]
        kind = dtype if tensor.dtype is CAPTURED else tensor.dtype
        if kind.is_floating_point:
            tensors[name] = torch.randn(shape, generator=generator).to(kind)
        else:
            tensors[name] = torch.randint(0, 2, shape, generator=generator).to(kind)
    return tensors


def ran(graph: ir.Graph, module: nn.Module, given: Mapping[str, Tensor]) -> np.ndarray:
    """The graph in ONNX Runtime, its parameters filled in."""
    for name, parameter in module.named_parameters():
        if name in graph.initializers:
            graph.initializers[name].const_value = ir.tensor(parameter.detach().numpy(), name=name)
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    known = {port.name for port in session.get_inputs()}
    return session.run(None, {name: tensor.numpy() for name, tensor in given.items() if name in known})[0]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_a_rule_gives_what_torch_gives(case: str, dtype: torch.dtype) -> None:
    inputs, function, written = CASES[case]
    module = Module(function, dtype)
    graph = lower(captured(inputs, function), module, FLOATS[dtype], ops.OPSET)
    given = feeds(inputs, dtype)
    wanted = module(*given.values())
    kinds = [node.op_type for node in graph]
    if dtype is torch.float16:
        assert [kind for kind in kinds if kind != "Cast"] == [kind for kind in written if kind != "Cast"]
    else:
        assert kinds == IN_FULL.get(case, written)
    found = ran(graph, module, given)
    assert found.dtype == wanted.numpy().dtype
    close = 2e-3 if wanted.dtype is torch.float16 else 1e-5
    np.testing.assert_allclose(found.astype(np.float64), wanted.double().numpy(), rtol=close, atol=close)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_an_older_opset_has_the_norm_written_out_in_float32(dtype: torch.dtype) -> None:
    norm = RMSNorm(8, 1e-5).to(dtype)
    nn.init.normal_(norm.weight)
    program = capture(RMSNorm(8, 1e-5).to(CAPTURED), TENSOR, AXES, ["y"])
    graph = lower(program, norm, FLOATS[dtype], ops.COMPAT_OPSET)
    assert "RMSNormalization" not in {node.op_type for node in graph}
    assert all(node.inputs[0].dtype is ir.DataType.FLOAT for node in graph if node.op_type == "Pow")
    given = feeds(TENSOR, dtype)
    found = ran(graph, norm, given)
    wanted = norm.double()(given["x"].double()).detach()
    np.testing.assert_allclose(found, wanted.to(dtype).numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_an_older_opset_has_attention_as_products_and_a_softmax(dtype: torch.dtype) -> None:
    def function(module: Module, x: Tensor) -> Tensor:
        query = (x @ module.weight).unsqueeze(1)
        return F.scaled_dot_product_attention(query, x.unsqueeze(1), x.unsqueeze(1))

    module = Module(function, dtype)
    graph = lower(captured(TENSOR, function), module, FLOATS[dtype], ops.COMPAT_OPSET)
    written = [node.op_type for node in graph if node.op_type != "Unsqueeze"]
    assert written == ["MatMul", "Mul", "Transpose", "MatMul", "Softmax", "MatMul"]
    given = feeds(TENSOR, dtype)
    wanted = module.double()(given["x"].double())
    close = 2e-2 if dtype is torch.float16 else 1e-5
    np.testing.assert_allclose(ran(graph, Module(function, dtype), given), wanted.numpy(), rtol=close, atol=close)


def test_an_older_opset_adds_attentions_bias_before_the_softmax() -> None:
    module = Module(attention, torch.float32)
    graph = lower(captured(TENSOR, attention), module, ir.DataType.FLOAT, ops.COMPAT_OPSET)
    assert [node.op_type for node in graph][-5:] == ["Transpose", "MatMul", "Add", "Softmax", "MatMul"]
    given = feeds(TENSOR, torch.float32)
    np.testing.assert_allclose(ran(graph, module, given), module(given["x"]).numpy(), rtol=1e-5, atol=1e-5)


def test_dimensions_carry_their_names() -> None:
    program = captured(TENSOR, lambda m, x: x.flatten(0, 1))
    graph = lower(program, Module(lambda m, x: x, torch.float32), ir.DataType.FLOAT, ops.OPSET)
    assert [str(dim) for dim in graph.inputs[0].shape or ()] == ["batch", "length", "8"]
    assert [str(dim) for dim in graph.outputs[0].shape or ()] == ["batch*length", "8"]


def test_what_nothing_needs_is_not_written() -> None:
    program = captured(TENSOR, lambda m, x: (x @ m.weight, x + 1)[1])
    graph = lower(program, Module(lambda m, x: x, torch.float32), ir.DataType.FLOAT, ops.OPSET)
    assert [node.op_type for node in graph] == ["Add"]
    assert len(graph.initializers) == 1


def test_a_node_that_is_left_out_reads_nothing() -> None:
    """Quantising looks for the one reader of a weight."""
    program = captured(TENSOR, lambda m, x: (x @ m.weight, (x + 1) @ m.weight)[1])
    graph = lower(program, Module(lambda m, x: x, torch.float32), ir.DataType.FLOAT, ops.OPSET)
    assert [use.node.op_type for use in graph.initializers["weight"].uses()] == ["MatMul"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: torch.erfinv(x), r"aten\.erfinv\.default: export/operators\.py has no rule"),
        (lambda m, x: torch.arange(x.shape[1] * 2), "no axis of an input has this size"),
        (lambda m, x: x.repeat(2, 2, 1).unflatten(0, (1, -1)), "leaves several sizes open"),
        (lambda m, x: torch.arange(x.shape[1]) * 0.5, "Mul of INT64 with a number of another type"),
        (lambda m, x: x.to(x.dtype), "is an input, or another output too"),
    ],
)
def test_what_no_graph_says_is_refused(function: Callable[..., Tensor], message: str) -> None:
    program = captured(TENSOR, function)
    with pytest.raises(GarExportError, match=message):
        lower(program, Module(lambda m, x: x, torch.float32), ir.DataType.FLOAT, ops.OPSET)
