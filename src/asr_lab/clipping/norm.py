"""Clipping by the global norm (Pascanu, Mikolov & Bengio 2013)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from asr_lab.clipping import global_norm, gradients
from asr_lab.types import ClipReport


class NormClipping:
    """g <- g * min(1, threshold / ||g||_2), all gradients together; direction kept (Pascanu et al. 2013, alg. 1)."""

    def __init__(self, threshold: float):
        if not threshold > 0:
            raise ValueError(f"clipping.threshold must be positive, {threshold} came; clipping=none switches it off")
        self.threshold = threshold

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        grads = gradients(parameters)
        before = global_norm(grads)
        # The small constant is torch.nn.utils.clip_grad_norm_'s, so that both give the same numbers. No branch on the
        # norm: on a GPU that would wait for the device at every step.
        scale = (self.threshold / (before + 1e-6)).clamp(max=1.0)
        if grads:
            torch._foreach_mul_(grads, scale.to(grads[0].device))  # pyright: ignore[reportPrivateImportUsage]
        return ClipReport(before, before * scale, scale < 1)
