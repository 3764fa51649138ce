"""Front-ends: one utterance's audio (S,) to features (T, F)."""

from typing import Protocol

from torch import Tensor


class Frontend(Protocol):
    out_dim: int

    def n_frames(self, n_samples: int) -> int:
        """Feature frames that so many samples give."""
        ...

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (T, F)"""
        ...


__all__ = ["Frontend"]
