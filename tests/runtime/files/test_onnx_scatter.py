"""The model of one TensorScatter, judged by the onnx package and its reference."""

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from gar_edge.runtime.files.onnx_scatter import OPSET, scatter_model


def test_it_is_a_valid_model_that_writes_one_slot() -> None:
    model = onnx.load_model_from_string(scatter_model())
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    cache = np.arange(8, dtype=np.float32).reshape(1, 1, 4, 2)
    update = np.full((1, 1, 1, 2), 9, np.float32)
    (found,) = ReferenceEvaluator(model).run(None, {"cache": cache, "update": update, "index": np.array([2])})
    assert found.ravel().tolist() == [0, 1, 2, 3, 9, 9, 6, 7]
