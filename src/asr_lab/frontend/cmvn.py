"""Cepstral (here: feature) mean and variance normalisation."""

from typing import Literal, NamedTuple, Protocol

from torch import Tensor

Scope = Literal["none", "utterance", "speaker", "global"]
SCOPES = ("utterance", "speaker", "global")


class Moments(NamedTuple):
    """Sums over frames, from which the mean and variance of any group of utterances follow."""

    n_frames: int
    total: Tensor  # (F,) float64, sum of features
    squares: Tensor  # (F,) float64, sum of their squares

    @classmethod
    def of(cls, feats: Tensor) -> "Moments":
        """(T, F) -> moments of one utterance"""
        wide = feats.double()
        return cls(len(feats), wide.sum(dim=0), wide.square().sum(dim=0))

    def plus(self, other: "Moments") -> "Moments":
        return Moments(self.n_frames + other.n_frames, self.total + other.total, self.squares + other.squares)

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """(F,), (F,) float32; the variance is that of the population"""
        mean = self.total / self.n_frames
        variance = (self.squares / self.n_frames - mean.square()).clamp(min=0)
        return mean.float(), variance.sqrt().float()


class Cmvn(Protocol):
    scope: Scope

    def __call__(self, feats: Tensor, moments: Moments) -> Tensor:
        """(T, F) -> (T, F), with the moments of its utterance, speaker or training split"""
        ...


class MomentCmvn:
    """Zero mean and unit variance of each feature over all frames of one utterance, one speaker or the training split.

    `speaker`: over all utterances that the speaker has in the split, as Kaldi's cmvn by utt2spk. A test speaker's
    utterances are then normalised together, so a hypothesis depends on all of them. `global`: over the training split,
    for every split. Speakers and training split are measured at their own speed, without augmentation.
    """

    def __init__(self, scope: Scope, eps: float):
        if scope not in SCOPES:
            raise ValueError(f"frontend.cmvn.scope={scope}; choose from: {', '.join(SCOPES)}")
        self.scope: Scope = scope
        self.eps = eps

    def __call__(self, feats: Tensor, moments: Moments) -> Tensor:
        mean, std = moments.mean_and_std()
        return (feats - mean).div_(std + self.eps)


class NoCmvn:
    """Features as they come."""

    scope: Scope = "none"

    def __call__(self, feats: Tensor, moments: Moments) -> Tensor:
        return feats
