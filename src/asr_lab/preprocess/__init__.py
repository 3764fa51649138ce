"""Pre-processing: what is done to recordings before features, in training and test alike."""

from typing import Protocol

from torch import Tensor


class Preprocess(Protocol):
    keeps_length: bool  # false where samples are cut away

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (S',) at the same sampling rate; deterministic, and never empty"""
        ...


__all__ = ["Preprocess"]
