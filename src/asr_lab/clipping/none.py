"""No clipping; the norm is measured all the same."""

from collections.abc import Iterable

import torch
from torch import Tensor

from asr_lab.clipping import global_norm, gradients
from asr_lab.types import ClipReport


class NoClipping:
    """Leaves the gradients as they are."""

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        norm = global_norm(gradients(parameters))
        return ClipReport(norm, norm, torch.zeros((), dtype=torch.bool, device=norm.device))
