"""Front-ends: one utterance's audio (S,) to features (T, F).

A front-end has three parts. It computes features one utterance at a time, on the CPU, where they can be cached. Its
`cmvn` normalises them when they are read. Its `head` is trained with the model and runs with it on batches: frame
stacking, or the learned filters of raw waveforms.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from asr_lab.frontend.cmvn import Cmvn


class Frontend(Protocol):
    out_dim: int  # F of what comes out here and is cached
    has_frequency_axis: bool  # neighbouring features are neighbouring frequencies: SpecAugment can mask bands
    cmvn: Cmvn
    head: Callable[..., "Head"]  # partial, given `in_dim=out_dim`

    def n_frames(self, n_samples: int) -> int:
        """Feature frames that so many samples give; at least 1."""
        ...

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (T, F), without normalisation; frame t depends on no padding, because there is none"""
        ...


class Head(Protocol):
    """The trained part, a `nn.Module`: what stands in the padding of `feats` never changes a valid output frame."""

    out_dim: int

    def output_lengths(self, lens: Tensor) -> Tensor:
        """Frames (B,) -> frames (B,) after the head."""
        ...

    def __call__(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,T',out_dim), (B,)"""
        ...


__all__ = ["Cmvn", "Frontend", "Head"]
