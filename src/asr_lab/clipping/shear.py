"""Gradient shearing: only the large elements of the gradient are used (Strom 2015; Aji & Heafield 2017)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from asr_lab.clipping import global_norm, gradients
from asr_lab.types import ClipReport


def shear(grads: list[Tensor], limit: Tensor) -> None:
    """g_i <- 0 where |g_i| < limit"""
    for g in grads:
        g.masked_fill_(g.abs() < limit, 0.0)


def limit_of_share(grads: list[Tensor], keep: float, sample: int) -> Tensor:
    """() the magnitude that a share `keep` of all elements reaches.

    With more than `sample` elements it is estimated from about so many at equal distances (as Lin et al. 2018).
    """
    n = sum(g.numel() for g in grads)
    stride = max(1, n // sample)
    values = torch.cat([g.flatten()[::stride] for g in grads]).abs().float()
    n_kept = max(1, round(keep * len(values)))
    return values.kthvalue(len(values) - n_kept + 1).values


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
        filled = [g for g in grads if g.numel()]
        if not filled:
            return ClipReport(before, before, before > 0)
        kept = [k for k, p in zip(self._places(moving), moving, strict=True) if p.grad is not None]
        if self.error_feedback:
            torch._foreach_add_(grads, kept)  # pyright: ignore[reportPrivateImportUsage]
        limit = (
            limit_of_share(filled, self.keep, self.sample)
            if self.keep is not None
            else torch.as_tensor(self.threshold, device=filled[0].device)
        )
        n_before = sum(torch.count_nonzero(g) for g in filled)
        whole = [g.clone() for g in grads] if self.error_feedback else []
        shear(filled, limit)
        if self.error_feedback and torch.isfinite(before):
            torch._foreach_copy_(kept, whole)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_sub_(kept, grads)  # pyright: ignore[reportPrivateImportUsage]
        n_after = sum(torch.count_nonzero(g) for g in filled)
        return ClipReport(before, global_norm(grads), torch.as_tensor(n_after < n_before))

    def _places(self, parameters: list[Tensor]) -> list[Tensor]:
        if len(self._kept) != len(parameters):
            self._kept = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self._kept = [k.to(p.device) for k, p in zip(self._kept, parameters, strict=True)]
        return self._kept

    def state_dict(self) -> dict[str, Any]:
        return {"kept": [k.cpu().clone() for k in self._kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kept = [k.clone() for k in state["kept"]]
