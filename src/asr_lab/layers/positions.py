"""Sinusoids (Vaswani et al. 2017) at absolute positions and at distances, kept and grown as needed."""

import math

import torch
from torch import Tensor, nn

from asr_lab.layers.exporting import exporting


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

    def _fill(self, first: int, end: int, step: int, device: torch.device) -> None:
        # A validation step runs in inference mode; what it leaves here is used in training, which must be able to
        # keep it for the backward pass.
        with torch.inference_mode(False):
            self.table = sinusoids(torch.arange(first, end, step, dtype=torch.float32, device=device), self.d_model)


class AbsolutePositions(_Table):
    """Positions first .. first+U-1: (U, D)."""

    def forward(self, n_frames: int, like: Tensor, first: int = 0) -> Tensor:
        """Number of frames U, a tensor whose device and dtype are wanted, the first position -> (U, D)"""
        if exporting():  # a table has an end
            return sinusoids(torch.arange(n_frames, device=like.device) + first, self.d_model).to(like)
        if self.table.shape[0] < first + n_frames:
            self._fill(0, first + n_frames, 1, like.device)
        return self.table[first : first + n_frames].to(like)


class RelativePositions(_Table):
    """Distances from a query back to each key: (K+U, D)."""

    def forward(self, n_keys: int, n_queries: int, like: Tensor) -> Tensor:
        """K keys, of which the last U are the queries -> (K+U, D) for the distances K-1 .. -U"""
        if exporting():
            return sinusoids(torch.arange(n_keys - 1, -n_queries - 1, -1, device=like.device), self.d_model).to(like)
        size = max(n_keys, n_queries)
        if self.table.shape[0] < 2 * size:
            self._fill(size - 1, -size - 1, -1, like.device)
        middle = self.table.shape[0] // 2 - 1  # distance 0
        return self.table[middle - n_keys + 1 : middle + n_queries + 1].to(like)


class PlacedInput(nn.Module):
    """What goes into the first layer: x, times sqrt(D) and with sinusoids added where wanted (Vaswani et al. 2017)."""

    def __init__(self, d_model: int, scaled: bool, absolute: bool):
        super().__init__()
        self.scale = math.sqrt(d_model) if scaled else 1.0
        self.positions = AbsolutePositions(d_model) if absolute else None

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """(B,U,D), the position of the first frame -> (B,U,D)"""
        if self.scale != 1.0:
            x = x * self.scale
        return x if self.positions is None else x + self.positions(x.shape[1], x, first)
