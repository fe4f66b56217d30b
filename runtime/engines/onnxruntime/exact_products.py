"""Integer products that are exact on every processor.

On x86 without VNNI, ONNX Runtime multiplies uint8 by int8 with an instruction that adds pairs of products in 16 bits
and saturates: answers are then wrong without a word. `session.x64quantprecision` makes it shift int8 weights into uint8
as it loads them, and take kernels that add in 32 bits. Where nothing saturates these are only slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gar_edge.runtime.engines.onnxruntime.session import ERRORS_ONLY, failure
from gar_edge.runtime.files.onnx_product import INPUT, product_model

EXACT = "session.x64quantprecision"  # onnxruntime_session_options_config_keys.h: kOrtSessionOptionsAvx2PrecisionMode
DEPTH, COLUMNS = 64, 16  # of the product that is tried
ROWS = (1, 8)  # a single row has kernels of its own


def products_saturate(ort: Any) -> bool:
    """Whether products of uint8 by int8 lose bits here, as ONNX Runtime computes them by default; about a millisecond.

    The largest product is computed, not the processor's flags read: which kernel runs depends on ONNX Runtime's build
    and version as well, and under an emulator /proc/cpuinfo is the host's. So it is the same on every system.
    `GarBackendError` where this ONNX Runtime cannot multiply integers.
    """
    weights = np.full((DEPTH, COLUMNS), 127, np.int8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    for rows in ROWS:
        try:
            model = product_model(weights, rows)
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
            (found,) = session.run(None, {INPUT: np.full((rows, DEPTH), 255, np.uint8)})
        except Exception as error:  # onnxruntime's exceptions share no base class below Exception
            raise failure(f"ONNX Runtime {ort.__version__} cannot multiply integers", error) from None
        if (found != 255 * 127 * DEPTH).any():
            return True
    return False


def keep_exact(options: Any, saturate: bool) -> None:
    """Let a session of these options compute exactly. saturate: from `products_saturate`."""
    if saturate:
        options.add_session_config_entry(EXACT, "1")
