"""Gradient shearing: only the large elements of the gradient are used (Strom 2015; Aji & Heafield 2017)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from asr_lab.clipping import global_norm, in_a_row
from asr_lab.types import ClipReport


def shear(row: Tensor, limit: Tensor | float) -> Tensor:
    """(N,) elements of at least `limit` in magnitude, 0 elsewhere; the others stay in `row`."""
    if row.device.type == "cpu":  # in one pass; a mask takes ten times as long there
        below = torch.nextafter(torch.as_tensor(limit, dtype=row.dtype), row.new_zeros(()))
        large = torch.nn.functional.hardshrink(row, below.item())
    else:
        large = row.masked_fill(row.abs() < limit, 0.0)
    row -= large
    return large


def limit_of_share(row: Tensor, keep: float, sample: int) -> Tensor:
    """() the magnitude that a share `keep` of all (N,) elements reaches.

    With more than `sample` elements it is estimated from about so many at equal distances (as Lin et al. 2018).
    """
    some = row[:: max(1, len(row) // sample)].abs()
    n_kept = max(1, round(keep * len(some)))
    return some.kthvalue(len(some) - n_kept + 1).values


def not_zero(row: Tensor) -> Tensor:
    """() is any of the (N,) elements not 0?"""
    if row.device.type == "cpu":  # it may be asked; the first few mostly tell
        some = row[:1000].norm() > 0
        if some:
            return some
    return torch.linalg.vector_norm(row) > 0


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
        self._kept: list[Tensor] = []  # what was dropped so far, of all parameters in order; of those that
        self._there: list[int] = []  # had a gradient in the last step
        self._row = torch.zeros(0)  # (N,) it is here

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        moving = [p for p in parameters if p.requires_grad]
        there = [i for i, p in enumerate(moving) if p.grad is not None]
        grads: list[Tensor] = [moving[i].grad for i in there]  # pyright: ignore[reportAssignmentType]
        if any(g.is_sparse for g in grads):
            raise ValueError("clipping=shear does not work with sparse gradients; choose clipping=norm")
        if not any(g.numel() for g in grads):
            zero = global_norm(grads)
            return ClipReport(zero, zero, zero > 0)
        row = in_a_row(grads)
        before = torch.linalg.vector_norm(row)
        kept = self._kept_of(moving, there) if self.error_feedback else None
        if kept is not None:
            row += kept
        limit = self.threshold if self.keep is None else limit_of_share(row, self.keep, self.sample)
        large = shear(row, limit)  # pyright: ignore[reportArgumentType]
        parts = torch._utils._unflatten_dense_tensors(large, grads)  # pyright: ignore[reportAttributeAccessIssue]
        for i, part, g in zip(there, parts, grads, strict=True):
            moving[i].grad = part if part.dtype == g.dtype else part.to(g.dtype)  # no copy
        if kept is not None:
            self._keep(row, before.isfinite())
        return ClipReport(before, torch.linalg.vector_norm(large), not_zero(row))

    def _kept_of(self, parameters: list[Tensor], there: list[int]) -> Tensor:
        """(N,) what is kept of those that have a gradient now"""
        if len(self._kept) != len(parameters):
            self._kept = [torch.zeros_like(p, dtype=torch.float32, requires_grad=False) for p in parameters]
            self._there = []
        if there != self._there:
            self._sort_in()
            self._there, self._row = there, in_a_row(self._kept[i].to(parameters[i].device) for i in there)
        return self._row

    def _keep(self, row: Tensor, finite: Tensor) -> None:
        # A CPU may be asked, which is cheaper there.
        self._row = (row if finite else self._row) if row.device.type == "cpu" else torch.where(finite, row, self._row)

    def _sort_in(self) -> None:
        parts = self._row.split([self._kept[i].numel() for i in self._there])
        for i, part in zip(self._there, parts, strict=True):
            self._kept[i] = part.view_as(self._kept[i])

    def state_dict(self) -> dict[str, Any]:
        self._sort_in()
        return {"kept": [k.cpu().clone() for k in self._kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kept, self._there, self._row = [k.clone() for k in state["kept"]], [], torch.zeros(0)
