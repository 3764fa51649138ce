"""Adaptive gradient clipping: each unit's gradient is measured against its own weights (Brock et al. 2021)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from asr_lab.clipping import EPS, each_norm, global_norm, gradients, positive
from asr_lab.types import ClipReport


def clip_by_weights(weights: list[Tensor], grads: list[Tensor], threshold: float, eps: float) -> ClipReport:
    """g_u <- g_u * min(1, threshold * max(||w_u||, eps) / ||g_u||), a unit u at a time (Brock et al. 2021, eq. 3).

    A unit is a row of a matrix or a filter of a kernel (all axes but the first), and the whole of a vector or scalar.
    `eps` lets weights that are zero move.
    """
    pairs = [(w, g) for w, g in zip(weights, grads, strict=True) if g.numel()]
    if not pairs:
        zero = global_norm([])
        return ClipReport(zero, zero, zero > 0)
    pairs.sort(key=lambda pair: pair[1].ndim > 1)  # those of one unit first
    grads = [g for _, g in pairs]
    units, limits = of_units(grads), of_units([w for w, _ in pairs]).clamp_(min=eps).mul_(threshold)
    scales = (limits / units.clamp(min=EPS)).clamp_(max=1.0)
    n_single = sum(g.ndim < 2 for g in grads)
    matrices = grads[n_single:]
    rows = scales[n_single:].split([g.shape[0] for g in matrices])
    of_each = [*scales[:n_single].unbind()]
    of_each += [row.view(-1, *[1] * (g.ndim - 1)) for row, g in zip(rows, matrices, strict=True)]
    torch._foreach_mul_(grads, [s.to(g.dtype) for s, g in zip(of_each, grads, strict=True)])  # pyright: ignore
    # The norm of all is that of the units' norms: no other pass over the gradients.
    before, after = torch.linalg.vector_norm(units), torch.linalg.vector_norm(units * scales)
    return ClipReport(before, after, (scales < 1).any())


def of_units(tensors: list[Tensor]) -> Tensor:
    """(U,) 2-norms of all units, in float32; tensors of one unit come first"""
    matrices = [x for x in tensors if x.ndim > 1]
    rows = [torch.linalg.vector_norm(x.float().flatten(1), dim=1) for x in matrices]
    single = tensors[: len(tensors) - len(matrices)]
    return torch.cat([each_norm(single), *rows] if single else rows)


class AdaptiveClipping:
    """`clip_by_weights`; parameters whose names begin with one of `exclude` are left alone.

    Brock et al. exclude the last linear layer: `exclude=[decoder.output]`.
    """

    def __init__(self, threshold: float, eps: float, exclude: list[str]):
        positive(threshold=threshold, eps=eps)
        self.threshold, self.eps, self.exclude = threshold, eps, tuple(exclude)
        self._left_alone: set[int] = set()

    def attach(self, module: nn.Module) -> None:
        """
        Raises:
            ValueError: no parameter has a name in `exclude`.
        """
        names = {name: id(p) for name, p in module.named_parameters()}
        for begin in self.exclude:
            if not any(name.startswith(begin) for name in names):
                raise ValueError(
                    f"clipping.exclude: no parameter's name begins with {begin!r}; names are such as "
                    f"{', '.join(list(names)[-3:])}"
                )
        self._left_alone = {i for name, i in names.items() if name.startswith(self.exclude)} if self.exclude else set()

    def __call__(self, parameters: Iterable[Tensor]) -> ClipReport:
        moving = [p for p in parameters if p.grad is not None]
        chosen = [p for p in moving if id(p) not in self._left_alone]
        report = clip_by_weights(_weights(chosen), gradients(chosen), self.threshold, self.eps)
        if len(chosen) == len(moving):
            return report
        rest = global_norm(gradients(p for p in moving if id(p) in self._left_alone))
        return report._replace(
            norm_before=torch.hypot(report.norm_before, rest), norm_after=torch.hypot(report.norm_after, rest)
        )


def _weights(parameters: list[Tensor]) -> list[Tensor]:
    """Weights as `gradients` has their gradients: of a sparse one the rows that have some."""
    found = []
    for p in parameters:
        grad = p.grad
        assert grad is not None
        found.append(p.detach()[grad.coalesce().indices()[0]] if grad.is_sparse else p.detach())
    return found
