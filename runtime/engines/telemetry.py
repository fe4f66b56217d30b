"""ONNX Runtime, imported with its telemetry off: nothing else imports it."""

from __future__ import annotations

import os
from typing import Any

from gar_edge.runtime.errors import GarBackendError

NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"  # environment variable of ONNX Runtime


def import_onnxruntime() -> Any:
    """The module, its telemetry off; `GarBackendError` says what to install.

    From 1.29 on, ONNX Runtime's own builds write an identifier into the user's cache and send events to Microsoft, on
    Linux too. It reads the variable once, while it is imported; only then is it set here, so that other programs and
    child processes see the environment as it was. Whoever has set it to anything keeps that.
    """
    chosen = NO_TELEMETRY in os.environ
    os.environ.setdefault(NO_TELEMETRY, "1")
    try:
        import onnxruntime
    except ImportError:
        raise GarBackendError(
            "ONNX Runtime is not installed; pip install 'gar-edge[cpu]' (or 'gar-edge[gpu]')"
        ) from None
    finally:
        if not chosen:
            os.environ.pop(NO_TELEMETRY, None)
    if not chosen:
        onnxruntime.disable_telemetry_events()  # it may have been imported before, by others
    return onnxruntime
