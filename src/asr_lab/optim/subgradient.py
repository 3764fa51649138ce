"""The subgradient method (Shor 1985; Boyd & Park, lecture notes of EE364b): for functions that have kinks."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asr_lab.optim.processes import mean_over_processes

RULES = ("constant", "length", "diminishing", "polyak")
AVERAGES = ("none", "uniform", "polynomial")


class Subgradient(torch.optim.Optimizer):
    """w <- w - a_t g, without momentum; g is whatever subgradient the backward pass chose, the decay a part of it.

    `rule` says a_t, t from 0: `constant` lr; `length` lr / ||g||, a step of constant length; `diminishing`
    lr / sqrt(t + 1); `polyak` lr (f(w) - f_best) / ||g||^2 (Polyak 1987), with the loss f of the step and the least
    loss that can be, `best_loss`. Norms are over all groups together.

    The loss need not fall at each step, and iterates may circle around the minimum; their mean converges. `average`
    says which mean is scored and kept, of the iterates w_1 ... w_T behind steps: `none` the last one; `uniform` all
    alike; `polynomial` later ones more, m <- m + (eta + 1) / (t + eta) (w_t - m), t from 1 (Shamir & Zhang 2013).
    Training is at the iterates: `eval()` puts the mean into the weights, `train()` the iterate back, bit by bit.
    """

    def __init__(
        self, params: Any, lr: float, rule: str, best_loss: float, weight_decay: float, average: str, eta: float
    ):
        """
        Raises:
            ValueError: an unknown rule or mean, a rate that is not positive, a negative decay.
        """
        for key, value, known in (("rule", rule, RULES), ("average", average, AVERAGES)):
            if value not in known:
                raise ValueError(f"optimizer.{key}={value}; choose from: {', '.join(known)}")
        if not lr > 0 or not weight_decay >= 0 or not math.isfinite(best_loss) or not eta >= 0:
            raise ValueError(
                f"optimizer.lr is positive, weight_decay and eta are not negative and best_loss is finite; {lr}, "
                f"{weight_decay}, {eta} and {best_loss} came"
            )
        self.rule, self.best_loss, self.average = rule, best_loss, average
        self.eta = eta if average == "polynomial" else 0.0
        self.needs_closure = rule == "polyak"
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "train_mode": True})

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
        found = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not found:
            return loss
        grads = [self._with_decay(p, group["weight_decay"]) for p, group in found]
        square = torch.stack(torch._foreach_norm(grads)).square().sum()  # pyright: ignore[reportPrivateImportUsage]
        state = self.state[self.param_groups[0]["params"][0]]
        t = state.setdefault("step", torch.zeros(()))
        factor = self._factor(t, square, loss)
        for (p, group), g in zip(found, grads, strict=True):
            p.sub_(g * (group["lr"] * factor))
        t += 1
        if self.average != "none":
            self._add(float(t))
        return loss

    def _with_decay(self, p: Tensor, weight_decay: float) -> Tensor:
        assert p.grad is not None
        grad = p.grad.to_dense()
        return grad + weight_decay * p if weight_decay else grad

    def _factor(self, t: Tensor, square: Tensor, loss: Any) -> Tensor | float:
        tiny = torch.finfo(square.dtype).tiny  # where the gradient is 0, nothing moves
        if self.rule == "length":
            return square.clamp(min=tiny).rsqrt()
        if self.rule == "diminishing":
            return 1.0 / math.sqrt(float(t) + 1)
        if self.rule == "polyak":
            loss = mean_over_processes(torch.as_tensor(loss, device=square.device).detach())
            return (loss - self.best_loss).clamp(min=0) / square.clamp(min=tiny)
        return 1.0

    def _add(self, t: float) -> None:
        """This step's weights to the mean."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "mean" not in state:
                    state["mean"] = torch.zeros_like(p)
                state["mean"].lerp_(p, (self.eta + 1) / (t + self.eta))

    @property
    def averages(self) -> bool:
        return self.average != "none"

    def eval(self) -> None:
        """Put the mean into the weights."""
        self._exchange("iterate", "mean", train_mode=False)

    def train(self) -> None:
        """Put the iterate back into the weights."""
        self._exchange("mean", "iterate", train_mode=True)

    @torch.no_grad()
    def _exchange(self, keep: str, put: str, train_mode: bool) -> None:
        """The weights are kept as one, and become the other."""
        for group in self.param_groups:
            if group["train_mode"] is not train_mode:
                group["train_mode"] = train_mode
                for p in group["params"]:
                    if put in self.state[p]:
                        wanted = self.state[p].pop(put)
                        self.state[p][keep] = p.clone()
                        p.copy_(wanted)
