"""Masks from lengths."""

import torch
from torch import Tensor


def valid_frames(lens: Tensor, n_frames: int) -> Tensor:
    """(B,) lengths -> (B, n_frames) bool, True on frames that are speech and not padding.

    Raises:
        ValueError: there is no frame; no layer has an answer to that.
    """
    if n_frames == 0:
        raise ValueError("an utterance of 0 feature frames came; at least 1 is needed")
    return torch.arange(n_frames, device=lens.device) < lens[:, None]


def attention_mask(valid: Tensor, context: Tensor | None) -> Tensor:
    """(B,U) valid frames, (U,U) from a `Context` or None -> (B,U,U) or (B,1,U) bool: may the row look at the column?"""
    return valid[:, None, :] if context is None else valid[:, None, :] & context
