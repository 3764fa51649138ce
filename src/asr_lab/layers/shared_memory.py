"""Frames of an utterance that many hypotheses look at."""

from typing import NamedTuple

import torch
from torch import Tensor


class SharedMemory(NamedTuple):
    """Tensors of A utterances for N = A W hypotheses: those of utterance a are rows aW to aW + W - 1.

    The W of an utterance are W queries of one attention call, so that a beam copies no frames.
    """

    tensors: tuple[Tensor, ...]  # (A, ...) each
    width: int  # W

    def select(self, rows: Tensor) -> "SharedMemory":
        """The memory of the hypotheses `rows` (M,) of these. Where the rows of utterances stand together, as many for
        each, they go on sharing; otherwise each gets a copy."""
        owners, counts = torch.unique_consecutive(rows // self.width, return_counts=True)
        width = int(counts.max()) if len(counts) else 1
        if width * len(owners) != len(rows):
            owners, width = rows // self.width, 1
        n = self.tensors[0].shape[0]
        if len(owners) == n and torch.equal(owners, torch.arange(n, device=rows.device)):
            return self._replace(width=width)
        return SharedMemory(tuple(t[owners] for t in self.tensors), width)

    def by_utterance(self, x: Tensor) -> Tensor:
        """(N,...) -> (A,W,...)"""
        return x.unflatten(0, (-1, self.width))
