"""Masks from lengths."""

import torch
from torch import Tensor


def valid_frames(lens: Tensor, n_frames: int) -> Tensor:
    """(B,) lengths -> (B, n_frames) bool, True on frames that are speech and not padding."""
    return torch.arange(n_frames, device=lens.device) < lens[:, None]
