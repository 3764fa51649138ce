"""Gradient shearing: only the large elements of the gradient are used (Strom 2015; Aji & Heafield 2017)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from asr_lab.clipping import global_norm, gradients
from asr_lab.types import ClipReport


def shear(values: Tensor, limit: Tensor | float) -> tuple[Tensor, Tensor]:
    """(N,) elements of at least `limit` in magnitude, 0 elsewhere; and (N,) the others, which are left out."""
    if values.device.type == "cpu":  # in one pass; a mask takes ten times as long there
        below = torch.nextafter(torch.as_tensor(limit, dtype=values.dtype), values.new_zeros(()))
        large = torch.nn.functional.hardshrink(values, below.item())
    else:
        large = values.masked_fill(values.abs() < limit, 0.0)
    return large, values - large


def limit_of_share(values: Tensor, keep: float, sample: int) -> Tensor:
    """() the magnitude that a share `keep` of all (N,) elements reaches.

    With more than `sample` elements it is estimated from about so many at equal distances (as Lin et al. 2018).
    """
    some = values[:: max(1, len(values) // sample)].abs()
    n_kept = max(1, round(keep * len(some)))
    return some.kthvalue(len(some) - n_kept + 1).values


class ShearClipping:
    """Drops all but the largest elements: a share `keep` of them (Aji & Heafield 2017), or those of at least
    `threshold` (Strom 2015), whichever of the two is not null.

    With `error_feedback` what is dropped is kept and added to the next step's gradients, so nothing is lost. The
    direction changes; reported as clipped where something non-zero was dropped.
    """

    def __init__(self, keep: float | None, threshold: float | None, error_feedback: bool, sample: int):
        if (keep is None) == (threshold is None):
            raise ValueError(f"one of clipping.keep and clipping.threshold is null, {keep} and {threshold} came")
        if keep is not None and not 0 < keep <= 1:
            raise ValueError(f"clipping.keep is a share, above 0 and at most 1, {keep} came")
        if threshold is not None and not threshold > 0:
            raise ValueError(f"clipping.threshold must be positive, {threshold} came; clipping=none switches it off")
        if sample < 100:
            raise ValueError(f"clipping.sample must be at least 100 elements, {sample} came")
        self.keep, self.threshold, self.error_feedback, self.sample = keep, threshold, error_feedback, sample
        self._kept: list[Tensor] = []  # what was dropped so far, of all parameters in order

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        moving = [p for p in parameters if p.requires_grad]
        if any(p.grad is not None and p.grad.is_sparse for p in moving):
            raise ValueError("clipping=shear does not work with sparse gradients; choose clipping=norm")
        grads = gradients(moving)
        before = global_norm(grads)
        if not any(g.numel() for g in grads):
            return ClipReport(before, before, before > 0)
        # All elements in one row: a few large operations instead of many small ones for each weight.
        whole = torch.cat([g.flatten() for g in grads]).float()
        kept = self._kept_of(moving) if self.error_feedback else []
        dropped_before = torch.cat([k.flatten() for k in kept]) if kept else whole.new_zeros(())
        whole += dropped_before
        limit = self.threshold if self.keep is None else limit_of_share(whole, self.keep, self.sample)
        large, dropped = shear(whole, limit)  # pyright: ignore[reportArgumentType]
        _write(large, grads)
        if kept:
            _write(torch.where(before.isfinite(), dropped, dropped_before), kept)
        return ClipReport(before, torch.linalg.vector_norm(large), global_norm([dropped], float("inf")) > 0)

    def _kept_of(self, parameters: list[Tensor]) -> list[Tensor]:
        """What is kept of those that have a gradient now"""
        if len(self._kept) != len(parameters):
            self._kept = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self._kept = [k.to(p.device) for k, p in zip(self._kept, parameters, strict=True)]
        return [k for k, p in zip(self._kept, parameters, strict=True) if p.grad is not None]

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [k.cpu().clone() for k in self._kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kept = [k.clone() for k in state["kept"]]


def _write(values: Tensor, tensors: list[Tensor]) -> None:
    """(N,) values into tensors of as many elements together"""
    parts = values.split([x.numel() for x in tensors])
    torch._foreach_copy_(tensors, [part.view_as(x) for part, x in zip(parts, tensors, strict=True)])  # pyright: ignore
