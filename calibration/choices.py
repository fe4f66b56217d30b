"""What a user can choose about quantisation, in words; imports nothing heavy, so that `--help` is instant."""

from __future__ import annotations

from enum import Enum

AUTO, NONE = "auto", "none"  # layers to leave in float: as the budget wants it, or not one


class Calibrator(str, Enum):
    """Ways to choose the range of an activation; see `thresholds.py`."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"
