"""Rounding weights and activations, against ONNX Runtime's own operators and hand-worked values."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.calibrating import gaussian
from onnx import TensorProto, helper
from torch import Tensor

from gar_edge.calibration import rounding
from gar_edge.calibration.rounding import Rounded, block_of, int4_blocks, int8_per_channel, on_grid
from gar_edge.runtime.errors import GarCalibrationError

LARGEST = 3e38  # nearly float32's
DENORMAL = 1e-42


@pytest.mark.parametrize("axis", [0, 1])
def test_int8_by_hand(axis: int) -> None:
    """Scales are powers of 2 here, so every quotient is exact; halves go to the even integer."""
    quotients = torch.tensor([[127.0, -20.0], [-64.0, 127.0], [2.5, 3.5], [-2.5, -0.5]])
    weight = quotients * torch.tensor([2.0**-7, 2.0**3])
    rounded = int8_per_channel(weight if axis else weight.T.contiguous(), axis)
    q = rounded.q if axis else rounded.q.T
    assert q.tolist() == [[127, -20], [-64, 127], [2, 4], [-2, 0]]
    assert rounded.scale.tolist() == [2.0**-7, 2.0**3]
    assert (rounded.q.dtype, rounded.scale.dtype) == (torch.int8, torch.float16)


@pytest.mark.parametrize("axis", [0, 1])
def test_int8_by_formula(axis: int) -> None:
    weight = (gaussian(48, 80) * torch.logspace(-1.5, 3, 80)).numpy()
    rounded = int8_per_channel(torch.from_numpy(weight), axis)
    scale = (np.abs(weight).max(axis=1 - axis, keepdims=True) / np.float32(127)).astype(np.float16)
    q = np.clip(np.rint(weight / scale.astype(np.float32)), -127, 127)
    np.testing.assert_array_equal(rounded.q.numpy(), q)
    np.testing.assert_array_equal(rounded.scale.numpy(), scale.ravel())
    np.testing.assert_array_equal(rounded.dequantised().numpy(), q.astype(np.float32) * scale.astype(np.float32))
    # Half a step, and what float16 cuts off the largest weight's scale.
    assert (np.abs(rounded.dequantised().numpy() - weight) <= scale * (0.5 + 127 * 2.0**-11)).all()


def test_minus_128_is_refused() -> None:
    """-127 is the least that every processor multiplies exactly."""
    scale = torch.ones(2, dtype=torch.float16)
    assert Rounded(torch.tensor([[-127, 127]], dtype=torch.int8), scale).q.min() == -127
    with pytest.raises(GarCalibrationError, match="-128"):
        Rounded(torch.tensor([[-128, 127]], dtype=torch.int8), scale)


def onnx_value(rounded: Rounded, scale_type: int = TensorProto.FLOAT) -> np.ndarray:
    """What ONNX Runtime's DequantizeLinear makes of a rounded int4 matrix's very bytes."""
    rows, columns = rounded.q.shape[0], 2 * rounded.q.shape[1]
    packed = helper.make_tensor("q", TensorProto.INT4, (rows, columns), rounded.q.numpy().tobytes(), raw=True)
    half = scale_type == TensorProto.FLOAT16
    scale = onnx.numpy_helper.from_array(rounded.scale.numpy().astype(np.float16 if half else np.float32), "scale")
    node = helper.make_node("DequantizeLinear", ["q", "scale"], ["y"], axis=0, block_size=rounded.block)
    result = helper.make_tensor_value_info("y", scale_type, (rows, columns))
    graph = helper.make_graph([node], "int4", [], [result], [packed, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {})
    return value


@pytest.mark.parametrize("block", [16, 32, 64])
def test_int4_bytes_are_what_onnx_reads(block: int) -> None:
    weight = gaussian(192, 34) * torch.logspace(-4, 2, 34)
    rounded = int4_blocks(weight, block)
    assert rounded.q.shape == (192, 17)
    assert rounded.scale.shape == (192 // block, 34)
    assert (rounded.q.dtype, rounded.scale.dtype) == (torch.uint8, torch.float16)
    value = onnx_value(rounded)
    np.testing.assert_array_equal(value, rounded.dequantised().numpy())
    np.testing.assert_array_equal(onnx_value(rounded, TensorProto.FLOAT16), value.astype(np.float16))
    assert np.linalg.norm(value - weight.numpy()) < 0.12 * np.linalg.norm(weight.numpy())


def test_int4_uses_all_sixteen_values() -> None:
    """-8 too, which the scale that clips nothing never reaches."""
    rounded = int4_blocks(gaussian(512, 8), 64)
    integers = onnx_value(rounded) / rounded.scale.float().repeat_interleave(64, dim=0).numpy()
    assert set(integers.flatten().tolist()) == set(range(-8, 8))


def squared_errors(weight: Tensor, found: Tensor, block: int, share: Tensor | None = None) -> Tensor:
    """By block and column, rows weighted."""
    errors = (found.double() - weight.double()) ** 2
    return (errors if share is None else errors * share.double()[:, None]).unflatten(0, (-1, block)).sum(dim=1)


@pytest.mark.parametrize("block", [16, 64])
def test_int4_is_never_worse_than_the_scale_that_clips_nothing(block: int) -> None:
    weight = gaussian(256, 50) ** 3
    found = squared_errors(weight, int4_blocks(weight, block).dequantised(), block)
    scale = (weight.unflatten(0, (-1, block)).abs().amax(dim=1) / 7).half().float().repeat_interleave(block, dim=0)
    plain = squared_errors(weight, (weight / scale).round().clamp(-8, 7) * scale, block)
    assert (found <= plain * (1 + 1e-5)).all()
    assert found.sum() < 0.95 * plain.sum()


def test_importance_lowers_the_error_that_matters() -> None:
    weight, importance = gaussian(256, 40) ** 3, torch.logspace(-3, 3, 256)[torch.randperm(256)]
    errors = [
        squared_errors(weight, int4_blocks(weight, 32, share).dequantised(), 32, importance)
        for share in (importance, None)
    ]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all()
    assert errors[0].sum() < 0.97 * errors[1].sum()


def test_wide_matrices_are_rounded_in_pieces_and_whole() -> None:
    weight = gaussian(32, rounding.COLUMNS + 6)
    whole, tail = int4_blocks(weight, 32), int4_blocks(weight[:, rounding.COLUMNS :].contiguous(), 32)
    assert whole.q.shape == (32, rounding.COLUMNS // 2 + 3)
    assert torch.equal(whole.q[:, rounding.COLUMNS // 2 :], tail.q)
    assert torch.equal(whole.scale[:, rounding.COLUMNS :], tail.scale)


ODD = {
    "zeros": torch.zeros(64, 6),
    "a zero column": gaussian(64, 6) * torch.tensor([1.0, 0, 1, 0, 1, 1]),
    "a zero row": gaussian(64, 6) * (torch.arange(64) != 5)[:, None],
    "denormal": torch.full((64, 6), DENORMAL),
    "tiny": gaussian(64, 6) * 1e-30,
    "huge": gaussian(64, 6).sign() * LARGEST,
    "tiny and huge": gaussian(64, 6) * torch.tensor([1e-38, 1e36, 1.0, 1e-5, 1e5, 0]),
}


@pytest.mark.parametrize("name", sorted(ODD))
@pytest.mark.parametrize("importance", [None, torch.zeros(64), torch.full((64,), 1e30)])
def test_odd_weights_stay_finite(name: str, importance: Tensor | None) -> None:
    weight = ODD[name]
    candidates = [int8_per_channel(weight, 0), int8_per_channel(weight, 1)]
    for rounded in (*candidates, *(int4_blocks(weight, block, importance) for block in rounding.BLOCKS)):
        assert (rounded.scale > 0).all()
        assert rounded.scale.isfinite().all()
        value = rounded.dequantised()
        assert value.isfinite().all()
        assert (value[weight == 0] == 0).all()
        assert (value * weight >= 0).all()  # signs never turn


def test_blocks_divide() -> None:
    assert [block_of(rows) for rows in (2048, 96, 48, 8960, 40, 100)] == [64, 32, 16, 64, None, None]


def test_activations_on_the_grid() -> None:
    """0.25 a step: halves to even, at most 127 steps up and 128 down, as QuantizeLinear saturates."""
    x = torch.tensor([0.0, 0.1, 0.125, 0.375, -0.3, 31.75, 40.0, -32.0, -40.0])
    assert on_grid(x.clone(), 0.25).tolist() == [0, 0, 0, 0.5, -0.25, 31.75, 31.75, -32, -32]
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    back = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])
    for kind, zero in ((np.int8, 0), (np.uint8, 128)):
        constants = [onnx.numpy_helper.from_array(np.array(0.25, np.float32), "s")]
        constants.append(onnx.numpy_helper.from_array(np.array(zero, kind), "z"))
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (None,)) for name in "xy"]
        graph = helper.make_graph([node, back], "grid", ports[:1], ports[1:], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_array_equal(y, on_grid(x.clone(), 0.25).numpy())
