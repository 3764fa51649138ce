"""Smooth squashing of the global norm: no step has exactly its own length, none is longer than the threshold."""

from collections.abc import Iterable

import torch
from torch import Tensor

from asr_lab.clipping import EPS, global_norm, gradients, multiply, positive
from asr_lab.types import ClipReport

CURVES = {"rational": lambda n, t: n * t / (n + t), "tanh": lambda n, t: t * torch.tanh(n / t)}


def squash(grads: list[Tensor], threshold: float, curve: str) -> ClipReport:
    """g <- g * f(||g||) / ||g||, with t the threshold and f(n) = n t / (n + t) (`rational`: the normalised step of
    Zhang et al. 2020) or f(n) = t tanh(n / t) (`tanh`, which is nearer to hard clipping). Direction kept.

    Always changes something; reported as clipped where the norm was above the threshold.
    """
    before = global_norm(grads)
    after = CURVES[curve](before, threshold)
    multiply(grads, torch.where(before > 0, after / (before + EPS * (before == 0)), 1.0))
    return ClipReport(before, after, before > threshold)


class SoftClipping:
    """`squash`"""

    def __init__(self, threshold: float, curve: str):
        positive(threshold=threshold)
        if curve not in CURVES:
            raise ValueError(f"clipping.curve={curve}; choose from: {', '.join(CURVES)}")
        self.threshold, self.curve = threshold, curve

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        return squash(gradients(parameters), self.threshold, self.curve)
