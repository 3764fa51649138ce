"""Clipping by the global norm (Pascanu, Mikolov & Bengio 2013)."""

from collections.abc import Iterable

from torch import Tensor

from asr_lab.clipping import global_norm, gradients, positive, scale_to
from asr_lab.types import ClipReport

NORMS = (1.0, 2.0, float("inf"))


def clip_by_norm(grads: list[Tensor], threshold: Tensor | float, p: float = 2.0) -> ClipReport:
    """g <- g * min(1, threshold / ||g||_p), all gradients together; direction kept (Pascanu et al. 2013, alg. 1)."""
    before = global_norm(grads)
    scale = scale_to(grads, before if p == 2 else global_norm(grads, p), threshold)
    return ClipReport(before, before * scale, scale < 1)


class NormClipping:
    """`clip_by_norm` with one threshold for the whole training; `p` is 1, 2 or inf."""

    def __init__(self, threshold: float, p: float):
        positive(threshold=threshold)
        if p not in NORMS:
            raise ValueError(f"clipping.p must be 1, 2 or .inf, {p} came")
        self.threshold, self.p = threshold, float(p)

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        return clip_by_norm(gradients(parameters), self.threshold, self.p)
