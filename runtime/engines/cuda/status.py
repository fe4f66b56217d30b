"""What cuda-python's functions return: a status and then values, for CUDA's runtime, its driver and NVRTC alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def unpacked(result: tuple[Any, ...], refusal: Callable[[Any], Exception]) -> Any:
    """The value, a tuple of several, or None; what `refusal` makes of a status that is not success (0) is raised."""
    status, *values = result
    if int(status) != 0:
        raise refusal(status)
    return values[0] if len(values) == 1 else tuple(values) or None
