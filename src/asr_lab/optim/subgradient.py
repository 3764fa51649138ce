"""The subgradient method (Shor 1985; Boyd & Park, lecture notes of EE364b): for functions that have kinks."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

RULES = ("constant", "length", "diminishing", "polyak")


class Subgradient(torch.optim.Optimizer):
    """w <- w - a_t g, without momentum; g is whatever subgradient the backward pass chose.

    `rule` says a_t, t from 0: `constant` lr; `length` lr / ||g||, a step of constant length; `diminishing`
    lr / sqrt(t + 1); `polyak` lr (f(w) - f_best) / ||g||^2 (Polyak 1987), with the loss f of the step and the least
    loss that can be, `best_loss`. Norms are over all groups together. Loss need not fall at each step; a mean of the
    iterates converges where they circle around the minimum.
    """

    def __init__(self, params: Any, lr: float, rule: str, best_loss: float, weight_decay: float):
        """
        Raises:
            ValueError: an unknown rule, a rate that is not positive, a negative decay.
        """
        if rule not in RULES:
            raise ValueError(f"optimizer.rule={rule}; choose from: {', '.join(RULES)}")
        if not lr > 0 or not weight_decay >= 0 or not math.isfinite(best_loss):
            raise ValueError(
                f"optimizer.lr is positive, weight_decay not negative and best_loss finite; {lr}, {weight_decay} and "
                f"{best_loss} came"
            )
        self.rule, self.best_loss = rule, best_loss
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """
        Raises:
            ValueError: `polyak` without a closure that gives the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        elif self.rule == "polyak":
            raise ValueError("optimizer.rule=polyak needs a closure that computes the loss: step(closure)")
        grads = [
            self._with_decay(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        if not grads:
            return loss
        square = torch.stack(torch._foreach_norm(grads)).square().sum()  # pyright: ignore[reportPrivateImportUsage]
        state = self.state[self.param_groups[0]["params"][0]]
        t = state.setdefault("step", torch.zeros(()))
        factor = self._factor(t, square, loss)
        at = 0
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            for p, g in zip(moving, grads[at : at + len(moving)], strict=True):
                p.sub_(g * (group["lr"] * factor))
            at += len(moving)
        t += 1
        return loss

    def _with_decay(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        assert p.grad is not None
        grad = p.grad.to_dense() if p.grad.is_sparse else p.grad
        return grad + group["weight_decay"] * p if group["weight_decay"] else grad

    def _factor(self, t: Tensor, square: Tensor, loss: Any) -> Tensor | float:
        tiny = torch.finfo(square.dtype).tiny  # where the gradient is 0, nothing moves
        if self.rule == "length":
            return square.clamp(min=tiny).rsqrt()
        if self.rule == "diminishing":
            return 1.0 / math.sqrt(float(t) + 1)
        if self.rule == "polyak":
            gap = torch.as_tensor(loss, device=square.device).detach() - self.best_loss
            return gap.clamp(min=0) / square.clamp(min=tiny)
        return 1.0
