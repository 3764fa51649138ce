"""Steps whose gradient is too large are left out."""

from collections.abc import Iterable

from torch import Tensor

from asr_lab.clipping import global_norm, gradients, positive
from asr_lab.types import ClipReport


class SkipClipping:
    """A step with a global norm above `threshold` moves no weight, as one that is not finite; other gradients pass."""

    def __init__(self, threshold: float):
        positive(threshold=threshold)
        self.threshold = threshold

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        norm = global_norm(gradients(parameters))
        skip = norm > self.threshold
        return ClipReport(norm, norm.masked_fill(skip, 0.0), skip, skip)
