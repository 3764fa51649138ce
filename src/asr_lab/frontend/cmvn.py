"""Cepstral (here: feature) mean and variance normalisation."""

import torch
from torch import Tensor


class UtteranceCmvn:
    """Zero mean and unit variance of each feature over the utterance's own frames."""

    def __init__(self, eps: float):
        self.eps = eps

    def __call__(self, feats: Tensor) -> Tensor:
        """(T, F) -> (T, F)"""
        std, mean = torch.std_mean(feats, dim=0, correction=0)
        return (feats - mean) / (std + self.eps)


class NoCmvn:
    """Features as they come."""

    def __call__(self, feats: Tensor) -> Tensor:
        return feats
