"""Gradient clipping, a first-class choice: called with all parameters of a step, each choice reports what it did.

The contract: `clipper(parameters) -> ClipReport(norm_before, norm_after, clipped)`, gradients changed in place. The
training task has looked for non-finite gradients before it calls a clipper. Choices that keep state are `nn.Module`s or
have `state_dict`/`load_state_dict`; those of this folder keep none.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from asr_lab.types import ClipReport


class Clipper(Protocol):
    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport: ...


def gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The gradients that exist, in order."""
    return [p.grad for p in parameters if p.grad is not None]


def global_norm(grads: list[Tensor], p: float = 2.0) -> Tensor:
    """() p-norm over all gradients together, in float32; 0 when there are none."""
    if not grads:
        return torch.zeros(())
    return torch.nn.utils.get_total_norm(grads, norm_type=p).float()


__all__ = ["Clipper", "global_norm", "gradients"]
