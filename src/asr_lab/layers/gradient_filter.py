"""Utterances whose gradient explodes in a recurrence are left out of its backward pass."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GradientFilter(Protocol):
    """Stands around the cells of each recurrent layer. What goes forward is never changed."""

    def __call__(self, run: Callable[[Tensor], Tensor], x: Tensor, cells: nn.Module) -> Tensor:
        """`run(x)` (B,U,D), where x is (B,U,D_in) and `run` uses the weights of `cells`"""
        ...


class NoFilter:
    """Every utterance counts."""

    def __call__(self, run: Callable[[Tensor], Tensor], x: Tensor, cells: nn.Module) -> Tensor:
        return run(x)


class PerUtteranceFilter:
    """Leaves an utterance out of a layer whose gradient there is above `threshold` times the median of the batch.

    Measured is the 2-norm, over frames and channels, of d loss / d x at the input of the layer: behind the backward
    pass through time, where an explosion shows. An utterance that is left out adds nothing to the gradients of the
    layer's cells nor to what flows on from its input; the others add what they would without it. The idea and the place
    are icefall's (GradientFilter in its LSTM transducers), whose weights take a share of the whole batch's gradient
    instead; see docs/decisions/0009.

    The backward pass through a layer is done again without the utterances that are left out: on a CPU where there are
    any, on a GPU always, so that nothing waits for the answer. The median is the lower one of two; an utterance without
    a gradient (nothing but zeros) counts neither way. Each process decides about its own part of a batch. Where a batch
    norm spreads gradients over the batch (LiGRU), an utterance stands out less. A float16 loss is scaled until
    something overflows: there what is not finite stays, for the scaler to see.
    """

    def __init__(self, threshold: float):
        if not threshold >= 1:
            raise ValueError(f"filter.threshold is a multiple of the median norm, at least 1; {threshold} came")
        self.threshold = threshold
        self._filtered = torch.zeros((), dtype=torch.long)

    def __call__(self, run: Callable[[Tensor], Tensor], x: Tensor, cells: nn.Module) -> Tensor:
        if not (cells.training and torch.is_grad_enabled()) or x.is_meta:
            return run(x)
        weights = [p for p in cells.parameters() if p.requires_grad]
        return _Filtered.apply(self, run, x, *weights)  # pyright: ignore[reportReturnType]

    def kept(self, gradient: Tensor, scaled: bool) -> Tensor:
        """(B,U,D_in) -> (B,) bool; counts the others. `scaled`: by the loss scale of float16"""
        norms = torch.linalg.vector_norm(gradient.float(), dim=(1, 2))
        finite = norms.isfinite()
        median = norms.where(finite & (norms > 0), torch.nan).nanmedian()
        kept = (norms <= self.threshold * median) | (norms == 0)
        # Without a single finite one the batch is wrong and no utterance of it: the step will be left out.
        kept |= ~finite if scaled else ~finite.any()
        self._filtered = self._filtered.to(kept.device) + (~kept).sum()
        return kept

    def take(self) -> Tensor:
        """() how many were left out since the last call, over all layers, on their device"""
        filtered, self._filtered = self._filtered, torch.zeros_like(self._filtered)
        return filtered


class _Filtered(torch.autograd.Function):
    """filter, run, (B,U,D_in), weights -> (B,U,D). Keeps a graph of its own, through which it can go back twice."""

    @staticmethod
    def forward(
        ctx: Any, chosen: PerUtteranceFilter, run: Callable[[Tensor], Tensor], x: Tensor, *weights: Tensor
    ) -> Tensor:
        kind = x.device.type
        ctx.scaled = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
        ctx.chosen, ctx.weights = chosen, weights
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = run(ctx.x)
        return ctx.y.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, inputs = ctx.y, (ctx.x, *ctx.weights)
        ctx.x = ctx.y = None  # memory of a layer is free once it was gone through
        found: Sequence[Tensor] = torch.autograd.grad(y, inputs, gradient, retain_graph=True)
        kept = ctx.chosen.kept(found[0], ctx.scaled)
        if kept.device.type != "cpu" or not kept.all():
            found = torch.autograd.grad(y, inputs, gradient.masked_fill(~kept[:, None, None], 0))
        return None, None, *found
