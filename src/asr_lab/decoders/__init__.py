"""Decoders: each owns its special ids, its loss and its search, and works with every encoder."""

from typing import Protocol

from torch import Tensor

from asr_lab.types import Hypothesis


class Decoder(Protocol):
    def loss(self, hidden: Tensor, lens: Tensor, labels: Tensor, label_lens: Tensor) -> Tensor:
        """Per-utterance negative log-likelihood (B,) of hidden (B,U,D) for labels (B,L)."""
        ...

    def decode(self, hidden: Tensor, lens: Tensor) -> list[Hypothesis]:
        """Best labels of each utterance."""
        ...

    def min_frames(self, labels: Tensor, label_lens: Tensor) -> Tensor:
        """Encoder frames (B,) that each label sequence needs at the least."""
        ...


__all__ = ["Decoder"]
