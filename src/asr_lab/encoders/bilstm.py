"""Bidirectional LSTM encoder (Graves & Schmidhuber 2005) on stacked frames."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.receptive_field import ReceptiveField


class BiLstmEncoder(nn.Module):
    """Frame stacking, then `n_layers` of [bidirectional LSTM -> layer norm -> dropout] of `2 * d_hidden` outputs.

    The backward direction reads each utterance reversed within its own length, so that it starts at the last valid
    frame and padding never enters a state. Packed sequences would do the same, but PyTorch runs them without its fast
    kernels on CPU (measured: 2.5 times slower, benchmarks/cpu_levers.py).
    """

    memory_growth = "linear"
    exports = True
    stream_frames = None

    def __init__(self, in_dim: int, d_hidden: int, n_layers: int, dropout: float, subsampling: Callable[..., Any]):
        super().__init__()
        if d_hidden < 1 or n_layers < 1:
            raise ValueError(f"d_hidden and n_layers must be positive, {d_hidden} and {n_layers} came")
        self.out_dim = 2 * d_hidden
        self.subsampling = subsampling(in_dim=in_dim, out_dim=self.out_dim)
        widths = [self.subsampling.out_dim] + [self.out_dim] * (n_layers - 1)
        self.forwards = nn.ModuleList(_lstm(w, d_hidden) for w in widths)
        self.backwards = nn.ModuleList(_lstm(w, d_hidden) for w in widths)
        self.norms = nn.ModuleList(nn.LayerNorm(self.out_dim) for _ in widths)
        self.dropout = Dropout(dropout)

    @property
    def receptive_field(self) -> ReceptiveField:
        return self.subsampling.receptive_field.all()

    def output_lengths(self, lens: Tensor) -> Tensor:
        return self.subsampling.output_lengths(lens)

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, lens = self.subsampling(feats, lens)
        mirrored = mirror(lens, x.shape[1])
        for ahead, back, norm in zip(self.forwards, self.backwards, self.norms, strict=True):
            y = reorder(back(reorder(x, mirrored))[0], mirrored)
            x = self.dropout(norm(torch.cat([ahead(x)[0], y], dim=-1)))
        return x.masked_fill(~valid_frames(lens, x.shape[1])[:, :, None], 0), lens


def mirror(lens: Tensor, n_frames: int) -> Tensor:
    """(B,) -> (B, U) indices that reverse the valid frames of each utterance and leave its padding in place."""
    index = torch.arange(n_frames, device=lens.device)
    return torch.where(index < lens[:, None], lens[:, None] - 1 - index, index)


def reorder(x: Tensor, index: Tensor) -> Tensor:
    """(B,U,D) frames in the order of `index` (B,U)"""
    return x.gather(1, index[:, :, None].expand_as(x))


def _lstm(in_dim: int, d_hidden: int) -> nn.LSTM:
    lstm = nn.LSTM(in_dim, d_hidden, batch_first=True)
    weights = dict(lstm.named_parameters())
    nn.init.orthogonal_(weights["weight_hh_l0"])
    nn.init.zeros_(weights["bias_hh_l0"])
    nn.init.zeros_(weights["bias_ih_l0"])
    # Forget gates start open (Jozefowicz et al. 2015); PyTorch's gate order is i, f, g, o.
    nn.init.ones_(weights["bias_ih_l0"][d_hidden : 2 * d_hidden])
    return lstm
