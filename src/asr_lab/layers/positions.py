"""Sinusoids (Vaswani et al. 2017) at absolute positions and at distances, kept and grown as needed."""

import math

import torch
from torch import Tensor, nn


def sinusoids(positions: Tensor, d_model: int) -> Tensor:
    """(N,) -> (N, D): sine and cosine interleaved, wavelengths from 2 pi to 10,000 * 2 pi."""
    rate = torch.exp(torch.arange(0, d_model, 2, device=positions.device) * (-math.log(10_000.0) / d_model))
    angle = positions[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :d_model]


class _Table(nn.Module):
    """A table of sinusoids that is no part of a state dict."""

    def __init__(self, d_model: int):
        super().__init__()
        self.d_model = d_model
        self.register_buffer("table", torch.empty(0, d_model), persistent=False)
        self.table: Tensor


class AbsolutePositions(_Table):
    """Positions first .. first+U-1: (U, D)."""

    def forward(self, n_frames: int, like: Tensor, first: int = 0) -> Tensor:
        """Number of frames U, a tensor whose device and dtype are wanted, the first position -> (U, D)"""
        if self.table.shape[0] < first + n_frames:
            self.table = sinusoids(
                torch.arange(first + n_frames, dtype=torch.float32, device=like.device), self.d_model
            )
        return self.table[first : first + n_frames].to(like)


class RelativePositions(_Table):
    """Distances from n_ahead-1 (a key that far before the query) down to -(n_behind-1): (n_ahead+n_behind-1, D)."""

    def forward(self, n_keys: int, n_queries: int, like: Tensor) -> Tensor:
        """K keys, of which the last U are the queries -> (K+U-1, D) for the distances K-1 .. -(U-1)"""
        size = max(n_keys, n_queries)
        if self.table.shape[0] < 2 * size - 1:
            distance = torch.arange(size - 1, -size, -1, dtype=torch.float32, device=like.device)
            self.table = sinusoids(distance, self.d_model)
        middle = self.table.shape[0] // 2  # distance 0
        return self.table[middle - n_keys + 1 : middle + n_queries].to(like)
