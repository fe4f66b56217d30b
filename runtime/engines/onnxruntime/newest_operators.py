"""Whether the ONNX Runtime that is installed knows the operators of the standard decoder.

Python 3.10, which is JetPack 6's, gets none newer than 1.23, and that refuses opset 24.
"""

from __future__ import annotations

from typing import Any

from gar_edge.runtime.engines.onnxruntime.session import ERRORS_ONLY
from gar_edge.runtime.files.onnx_scatter import OPSET, scatter_model

NEEDED = f"opset {OPSET} takes onnxruntime 1.26 and Python 3.11, or newer ones"


def knows_newest_operators(ort: Any) -> bool:
    """Whether it loads a model of the newest of them, which is tried: one to three milliseconds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    try:
        ort.InferenceSession(scatter_model(), options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception:  # onnxruntime's exceptions share no base class below Exception
        return False
    return True
