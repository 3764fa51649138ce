"""Cepstral (here: feature) mean and variance normalisation, over an utterance, a speaker or the training split."""

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Sums over frames, from which means and variances of any group of utterances follow."""

    n_frames: int
    total: Tensor  # (F,) float64, sum of features
    squares: Tensor  # (F,) float64, sum of their squares

    @classmethod
    def of(cls, feats: Tensor) -> "Moments":
        """(T, F) -> moments of one utterance"""
        wide = feats.double()
        return cls(len(feats), wide.sum(dim=0), wide.square().sum(dim=0))

    def __add__(self, other: "Moments") -> "Moments":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Moments(self.n_frames + other.n_frames, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> Tensor:
        return (self.total / self.n_frames).float()

    @property
    def std(self) -> Tensor:
        mean = self.total / self.n_frames
        return (self.squares / self.n_frames - mean.square()).clamp(min=0).sqrt().float()


class Cmvn(Protocol):
    scope: Literal["none", "utterance", "speaker", "global"]  # whose moments it is given

    def __call__(self, feats: Tensor, moments: Moments | None) -> Tensor:
        """(T, F) -> (T, F)"""
        ...


class NoCmvn:
    """Features as they come."""

    scope = "none"

    def __call__(self, feats: Tensor, moments: Moments | None) -> Tensor:
        return feats


class UtteranceCmvn:
    """Zero mean and unit variance of each feature over the utterance's own frames."""

    scope = "utterance"

    def __init__(self, eps: float):
        self.eps = eps

    def __call__(self, feats: Tensor, moments: Moments | None) -> Tensor:
        std, mean = torch.std_mean(feats, dim=0, correction=0)
        return (feats - mean) / (std + self.eps)


class SpeakerCmvn:
    """Mean and variance over all frames of the speaker's utterances in the split, as Kaldi's cmvn with utt2spk.

    A test speaker's utterances are normalised together, so a hypothesis depends on all of them.
    """

    scope = "speaker"

    def __init__(self, eps: float):
        self.eps = eps

    def __call__(self, feats: Tensor, moments: Moments | None) -> Tensor:
        assert moments is not None
        return (feats - moments.mean) / (moments.std + self.eps)


class GlobalCmvn(SpeakerCmvn):
    """Mean and variance over all frames of the training split, for every split."""

    scope = "global"
