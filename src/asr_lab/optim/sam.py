"""Sharpness-aware minimisation around any optimizer (Foret et al. 2021)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Sam(torch.optim.Optimizer):
    """The gradient is taken where the loss is worst within `rho` of the weights: w + rho g / ||g||_2 (equation 2).

    `base` makes the optimizer that takes the step, with the same groups. Twice the cost of a step: the loss and its
    gradient are computed at both places, of the same batch; dropout draws anew, and batch norm's running statistics
    see the batch twice. With `adaptive`, the neighbourhood is measured against the size of each weight,
    w + rho w^2 g / || |w| g || (Kwon et al. 2021, equation 10).

    Where the first gradient is not finite there is nowhere to climb: the second one is then taken at the same weights,
    and it is for whoever calls to leave the step out if it is not finite either. Weights come back from copies.
    """

    needs_closure = True  # for the training task, which has none to give in some trainings
    probing = False  # while the closure computes the first gradient, which is not that of the step

    def __init__(
        self, params: Any, base: Callable[..., torch.optim.Optimizer], lr: float, weight_decay: float, rho: float,
        adaptive: bool,
    ):  # fmt: skip
        if not rho > 0:
            raise ValueError(f"optimizer.rho must be positive, {rho} came")
        inner = base(params, lr=lr, weight_decay=weight_decay)
        if getattr(inner, "needs_closure", False):
            raise ValueError(f"optimizer.base: {type(inner).__name__} needs a closure of its own; choose another")
        self.rho, self.adaptive = rho, adaptive
        super().__init__(inner.param_groups, inner.defaults)
        self.base = inner
        # One list of groups and one state, so that a schedule of this one is the base's.
        self.param_groups, self.state = inner.param_groups, inner.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """
        Raises:
            ValueError: no closure that computes the loss and its gradients.
        """
        if closure is None:
            raise ValueError("SAM needs a closure that computes the loss and its gradients: step(closure)")
        self.probing = True
        try:
            with torch.enable_grad():
                loss = closure()
        finally:
            self.probing = False
        before = self._climb()
        try:
            with torch.enable_grad():
                closure()
        finally:
            for p, w in before:
                p.copy_(w)
        self.base.step()
        return loss

    def _climb(self) -> list[tuple[Tensor, Tensor]]:
        """Moves the weights to the worst place near by; (weight, copy of what it was)"""
        grads = [(p, p.grad.to_dense()) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not grads:
            return []
        scaled = [p.abs() * g if self.adaptive else g for p, g in grads]
        norm = torch.stack(torch._foreach_norm(scaled)).square().sum().sqrt()  # pyright: ignore[reportPrivateImportUsage]
        factor, finite = self.rho / (norm + 1e-12), norm.isfinite()
        before = [(p, p.clone()) for p, _ in grads]
        for (p, _), g in zip(grads, scaled, strict=True):
            by = (p.abs() * g if self.adaptive else g) * factor
            p.add_(torch.where(finite, by, 0.0))  # asks no device whether it is finite
        return before

    @property
    def averages(self) -> bool:
        return getattr(self.base, "averages", hasattr(self.base, "eval"))

    def train(self) -> None:
        self._tell("train")

    def eval(self) -> None:
        self._tell("eval")

    def _tell(self, mode: str) -> None:
        """Of a base that trains at other weights than it scores"""
        if hasattr(self.base, mode):
            getattr(self.base, mode)()

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self.param_groups, self.state = self.base.param_groups, self.base.state
