"""What all hypotheses of an utterance share, so that a beam copies none of it."""

from typing import NamedTuple

import torch
from torch import Tensor


class PerUtterance(NamedTuple):
    """Tensors with a row an utterance, beside `n_each` hypotheses of each utterance that lie side by side."""

    tensors: tuple[Tensor, ...]  # each (B, ...)
    n_each: int

    def select(self, rows: Tensor) -> "PerUtterance":
        """After hypotheses `rows` (M,) out of B * n_each were chosen. Copies only if utterances went away or mixed."""
        owners, counts = torch.unique_consecutive(rows // self.n_each, return_counts=True)
        n_each = rows.shape[0] // max(1, owners.shape[0])
        if not (counts == n_each).all():
            owners, n_each = rows // self.n_each, 1
        everyone = torch.arange(self.tensors[0].shape[0], device=rows.device)
        tensors = self.tensors if torch.equal(owners, everyone) else tuple(t[owners] for t in self.tensors)
        return PerUtterance(tensors, n_each)

    def group(self, x: Tensor) -> Tensor:
        """(B * n_each, ...) -> (B, n_each, ...)"""
        return x.unflatten(0, (-1, self.n_each))

    def spread(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B * n_each, ...)"""
        return x if self.n_each == 1 else x.repeat_interleave(self.n_each, dim=0)
