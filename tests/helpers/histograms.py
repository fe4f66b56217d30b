"""Activations, and what is gathered of them."""

import torch

from gar_edge.calibration.histogram import ChannelHistogram


def observed(x: torch.Tensor, pieces: tuple[int, ...] = (), seed: int = 0) -> ChannelHistogram:
    """Statistics of x [N, C], shown in pieces that begin at these rows."""
    histogram = ChannelHistogram(x.shape[1], seed)
    for piece in x.tensor_split(pieces):
        histogram.observe(piece)
    return histogram


def activations(rows: int, channels: int, seed: int = 0) -> torch.Tensor:
    """Normal values whose spread differs by channel, up to 50 times."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(-1, 0.7, channels)
    return torch.randn(rows, channels, generator=generator) * spread
