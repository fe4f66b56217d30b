"""The model of a product that is written by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from gar_edge.runtime.files.onnx_product import INPUT, OUTPUT, product_model


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(8, 64, 32), (1, 3, 5), (300, 200, 129)])
def test_it_computes_what_numpy_computes(dtype: type, rows: int, depth: int, columns: int) -> None:
    """Weights of ordinary size, with which no kernel saturates."""
    random = np.random.default_rng(2)
    if dtype is np.int8:
        a, b = random.integers(0, 256, (rows, depth), np.uint8), random.integers(-64, 65, (depth, columns), np.int8)
        expected = a.astype(np.int32) @ b.astype(np.int32)
    else:
        a, b = random.random((rows, depth), np.float32), random.random((depth, columns), np.float32)
        expected = a @ b
    model = product_model(b, rows)
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {INPUT: a})
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5)
