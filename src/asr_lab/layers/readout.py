"""What is read of the frames of an encoder: all of them, or one vector for an utterance (N-to-1)."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from asr_lab.layers.masks import valid_frames


class Readout(Protocol):
    """A `nn.Module`, built with `in_dim` and `n_directions` (2: the second half of the features ran backwards)."""

    one: bool  # one vector for an utterance, however long

    def __call__(self, hidden: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,U,D), (B,) -> (B,U,D), (B,), or where `one`: (B,1,D), ones (B,)"""
        ...


class Frames(nn.Module):
    """Every frame; zeros in the padding."""

    one = False

    def __init__(self, in_dim: int, n_directions: int):
        super().__init__()

    def forward(self, hidden: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        return hidden.masked_fill(~valid_frames(lens, hidden.shape[1])[:, :, None], 0), lens


class LastState(nn.Module):
    """The frame at which each direction has heard the whole utterance: the last, and the first of the backward one."""

    one = True

    def __init__(self, in_dim: int, n_directions: int):
        super().__init__()
        self.n_directions = n_directions

    def forward(self, hidden: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        last = (lens - 1).clamp(min=0)[:, None, None].expand(-1, 1, hidden.shape[2])
        ahead, back = hidden.gather(1, last), hidden[:, :1]
        if self.n_directions == 2:
            ahead = torch.cat([ahead.chunk(2, dim=-1)[0], back.chunk(2, dim=-1)[1]], dim=-1)
        return ahead, torch.ones_like(lens)


class Mean(nn.Module):
    """The mean of the valid frames."""

    one = True

    def __init__(self, in_dim: int, n_directions: int):
        super().__init__()

    def forward(self, hidden: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        valid = valid_frames(lens, hidden.shape[1])[:, :, None]
        total = hidden.masked_fill(~valid, 0).sum(dim=1, keepdim=True)
        return total / lens.clamp(min=1)[:, None, None], torch.ones_like(lens)


class AttentionPooling(nn.Module):
    """A weighted mean of the valid frames; a frame's weight is softmax(v tanh(W h)) (Lin et al. 2017, equation 5)."""

    one = True

    def __init__(self, in_dim: int, n_directions: int, d_attention: int):
        super().__init__()
        if d_attention < 1:
            raise ValueError(f"readout.d_attention must be positive, {d_attention} came")
        self.score = nn.Sequential(
            nn.Linear(in_dim, d_attention, bias=False), nn.Tanh(), nn.Linear(d_attention, 1, bias=False)
        )

    def forward(self, hidden: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        padding = ~valid_frames(lens, hidden.shape[1])[:, :, None]
        scores = self.score(hidden).float().masked_fill(padding, float("-inf"))  # (B, U, 1)
        weights = scores.softmax(dim=1).to(hidden.dtype)
        return (weights * hidden.masked_fill(padding, 0)).sum(dim=1, keepdim=True), torch.ones_like(lens)


def fit_to(readout: Any, encoder: Any) -> None:
    """Tell a readout whether the second half of an encoder's features ran backwards."""
    if hasattr(readout, "n_directions"):
        readout.n_directions = 2 if getattr(encoder, "bidirectional", False) else 1
