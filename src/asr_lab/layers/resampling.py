"""Inside an encoder: to a lower frame rate by learned weights, back by repetition."""

import torch
from torch import Tensor, nn


class LearnedDownsample(nn.Module):
    """Frames u * factor to u * factor + factor - 1 weighted to one; the weights (softmax) are those of valid frames."""

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor
        self.logits = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B,U,D) finite, (B,U) bool -> (B,ceil(U/factor),D), (B,ceil(U/factor)) bool"""
        n_out = (x.shape[1] + self.factor - 1) // self.factor
        missing = n_out * self.factor - x.shape[1]
        groups = nn.functional.pad(x, (0, 0, 0, missing)).reshape(x.shape[0], n_out, self.factor, x.shape[2])
        valid = nn.functional.pad(mask, (0, missing)).reshape(x.shape[0], n_out, self.factor)
        weights = self.logits.softmax(dim=0) * valid
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-8)  # a group of padding: zeros
        return (groups * weights[..., None].to(x.dtype)).sum(dim=2), valid[:, :, 0]


def repeat_frames(x: Tensor, factor: int, n_frames: int) -> Tensor:
    """(B, ceil(n_frames / factor), D) -> (B, n_frames, D): frame u is frame u // factor of x."""
    return x[:, :, None].expand(-1, -1, factor, -1).flatten(1, 2)[:, :n_frames]
