"""Clipping of each gradient element to an interval."""

from collections.abc import Iterable

import torch
from torch import Tensor

from asr_lab.clipping import global_norm, gradients, positive
from asr_lab.types import ClipReport


def clip_by_value(grads: list[Tensor], threshold: float) -> ClipReport:
    """g_i <- min(max(g_i, -threshold), threshold), element by element; the direction changes (Mikolov 2012, thesis)."""
    before, largest = global_norm(grads), global_norm(grads, float("inf"))
    if grads:
        torch._foreach_clamp_min_(grads, -threshold)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_clamp_max_(grads, threshold)  # pyright: ignore[reportPrivateImportUsage]
    return ClipReport(before, global_norm(grads), largest > threshold)


class ValueClipping:
    """`clip_by_value`"""

    def __init__(self, threshold: float):
        positive(threshold=threshold)
        self.threshold = threshold

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        return clip_by_value(gradients(parameters), self.threshold)
