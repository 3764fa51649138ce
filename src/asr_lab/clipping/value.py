"""Clipping of each gradient element to an interval."""

from collections.abc import Iterable

import torch
from torch import Tensor

from asr_lab.clipping import global_norm, gradients
from asr_lab.types import ClipReport


class ValueClipping:
    """g_i <- min(max(g_i, -threshold), threshold), element by element; the direction changes (Mikolov 2012, thesis)."""

    def __init__(self, threshold: float):
        if not threshold > 0:
            raise ValueError(f"clipping.threshold must be positive, {threshold} came; clipping=none switches it off")
        self.threshold = threshold

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        grads = gradients(parameters)
        before = global_norm(grads)
        largest = global_norm(grads, float("inf"))
        if grads:
            torch._foreach_clamp_min_(grads, -self.threshold)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_clamp_max_(grads, self.threshold)  # pyright: ignore[reportPrivateImportUsage]
        return ClipReport(before, global_norm(grads), largest > self.threshold)
