"""Encoders: `(feats (B,T,F), lens (B,)) -> (hidden (B,U,D), out_lens (B,))`, one file a family.

The contract of every encoder: it takes `in_dim` (feature width), has `out_dim`, and `output_lengths(lens)` says how
many encoder frames come of so many feature frames, before anything is run. Padding never changes a valid output.
"""

from typing import Protocol

from torch import Tensor


class Encoder(Protocol):
    out_dim: int

    def output_lengths(self, lens: Tensor) -> Tensor:
        """Feature frames (B,) -> encoder frames (B,)."""
        ...

    def __call__(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]: ...


__all__ = ["Encoder"]
