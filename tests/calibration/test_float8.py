"""E4M3 rounding and ranges, against ml_dtypes, ONNX Runtime and values worked by hand."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from helpers.shapes import SHAPES
from onnx import TensorProto, helper, numpy_helper

from gar_edge.calibration.choices import Calibrator
from gar_edge.calibration.float8 import FLOAT8, FP8_MAX, float8_threshold, fp8_per_channel, on_float8_grid, to_float8
from gar_edge.calibration.histogram import LinearHistogram
from gar_edge.calibration.plan import Plan, Scheme, SitePlan
from gar_edge.calibration.qdq import insert_qdq
from gar_edge.calibration.sites import HEAD, decoder_sites, encoder_sites
from gar_edge.calibration.thresholds import SMALLEST
from gar_edge.export import forms
from gar_edge.export.graphs import Precision
from gar_edge.models.standin import random_checkpoint_of

E4M3 = ml_dtypes.float8_e4m3fn


def values() -> np.ndarray:
    """Every finite number of E4M3, the middles between neighbours, and random ones around them."""
    grid = np.sort(np.arange(256, dtype=np.uint8).view(E4M3).astype(np.float32))
    grid = np.unique(grid[np.isfinite(grid)])
    random = np.random.default_rng(4)
    spread = random.normal(size=4000).astype(np.float32) * 10.0 ** random.integers(-4, 3, 4000).astype(np.float32)
    return np.concatenate([grid, (grid[1:] + grid[:-1]) / 2, spread]).astype(np.float32)


def test_it_rounds_as_ml_dtypes_does() -> None:
    x = values()
    x = x[np.abs(x) <= FP8_MAX]
    found = to_float8(torch.from_numpy(x)).float().numpy()
    np.testing.assert_array_equal(found, x.astype(E4M3).astype(np.float32))


@pytest.mark.parametrize(
    ("x", "expected"),
    [(448.0, 448.0), (449.0, 448.0), (1e9, 448.0), (-float("inf"), -448.0), (1.0625, 1.0), (1.1875, 1.25),
     (2.0**-9, 2.0**-9), (2.0**-10, 0.0), (2.0**-10 * 1.01, 2.0**-9), (17.0, 16.0), (19.0, 20.0)],
)  # fmt: skip
def test_by_hand(x: float, expected: float) -> None:
    """Three bits behind the point, ties to even; the least is 2^-9, half of it is a tie with 0; beyond 448 it stays."""
    assert float(to_float8(torch.tensor(x)).float()) == expected


def test_it_is_what_onnx_runtime_quantises_to() -> None:
    x, scale = values(), np.float32(0.0137)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    kind = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("x", "y")]
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    graph = helper.make_graph(nodes, "g", kind[:1], kind[1:], [numpy_helper.from_array(scale, "s"), zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(on_float8_grid(torch.from_numpy(x), float(scale)).numpy(), expected)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [1e-4, 0.02, 3.0])
def test_weights_have_a_scale_for_each_output(axis: int, size: float) -> None:
    weight = torch.randn(24, 40, generator=torch.Generator().manual_seed(1)) * size
    weight[:, 3] *= 50
    rounded = fp8_per_channel(weight, axis)
    assert (rounded.q.dtype, rounded.scale.dtype, rounded.scale.shape) == (FLOAT8, torch.float16, (weight.shape[axis],))
    scale = np.expand_dims(rounded.scale.numpy().astype(np.float32), 1 - axis)
    expected = (weight.numpy() / scale).clip(-448, 448).astype(E4M3)
    np.testing.assert_array_equal(rounded.q.view(torch.uint8).numpy(), expected.view(np.uint8))
    error = np.abs(rounded.dequantised().numpy() - weight.numpy())
    # Half a step: of three bits for normal numbers, of 2^-9 for those below 2^-6. The scale's own rounding may clip.
    assert (error <= np.maximum(np.abs(weight.numpy()) * (2.0**-4 + 2.0**-10), scale * 2.0**-10 * 1.01)).all()


def test_a_channel_of_zeros_is_zeros() -> None:
    rounded = fp8_per_channel(torch.zeros(4, 2))
    assert not rounded.dequantised().any()
    assert (rounded.scale > 0).all()


def histogram(x: np.ndarray) -> LinearHistogram:
    top = float(np.abs(x).max())
    return LinearHistogram(np.histogram(np.abs(x), 2048, (0, top))[0].astype(np.float64), top)


@pytest.mark.parametrize("calibrator", [Calibrator.MSE, Calibrator.ENTROPY])
def test_the_range_has_the_least_error(calibrator: Calibrator) -> None:
    """Of the values themselves, by ml_dtypes: no range of a finer search is more than a little better."""
    x = np.random.default_rng(5).standard_t(4, 20000).astype(np.float32)

    def error(top: float) -> float:
        step = np.float32(top / 448)
        grid = (x / step).clip(-448, 448).astype(E4M3).astype(np.float32) * step
        return float(((grid - x) ** 2).sum())

    found = float8_threshold(histogram(x), calibrator)
    best = min(error(float(np.abs(x).max()) * share) for share in np.linspace(0.1, 1, 300))
    assert error(found) <= 1.02 * best


def test_other_ranges_by_hand() -> None:
    x = np.concatenate([np.linspace(0, 1, 99_999, dtype=np.float32), [50]])
    assert float8_threshold(histogram(x), Calibrator.MINMAX) == 50
    assert 0.9 < float8_threshold(histogram(x), Calibrator.PERCENTILE) < 1.1
    assert float8_threshold(LinearHistogram(np.zeros(8), 0.0), Calibrator.MSE) == SMALLEST


def test_nodes_of_e4m3_stand_before_products() -> None:
    """In both forms alike: zero points of type E4M3, a scale a tensor for activations, one a column for weights."""
    checkpoint = random_checkpoint_of(SHAPES["tied"], "tiny")
    traced = forms.write_graphs(checkpoint, Precision.FP8)
    config = checkpoint.config
    for name, sites in (("encoder", encoder_sites(config)), ("decoder", decoder_sites(config, checkpoint.tied))):
        for form in (traced[name].main, *traced[name].by_engine.values()):
            plan = Plan({site.name: SitePlan(site, Scheme.FP8, step=0.5) for site in sites})
            insert_qdq(form.model, plan, unsigned=form is not traced[name].main)
            nodes = list(form.model.graph)
            quantised = [node for node in nodes if node.op_type == "QuantizeLinear"]
            assert len(quantised) == len(sites)
            for node in quantised:
                _, scale, zero = node.inputs
                assert zero is not None
                assert scale is not None
                assert (zero.dtype, zero.shape.rank(), scale.shape.rank()) == (ir.DataType.FLOAT8E4M3FN, 0, 0)
                assert float(zero.const_value.numpy()) == 0
            weights = [node for node in nodes if node.op_type == "DequantizeLinear" and len(node.inputs) == 2]
            assert len(weights) == sum(len(site.weights) for site in sites)
            for node in weights:
                assert node.inputs[0].dtype is ir.DataType.FLOAT8E4M3FN
                axis = node.attributes["axis"].as_int()
                assert axis == (0 if node.inputs[0].name == f"{HEAD}_q" else 1)
                assert node.inputs[1].shape.numpy() == (node.inputs[0].shape.numpy()[axis],)
