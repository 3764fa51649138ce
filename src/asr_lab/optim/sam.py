"""Sharpness-aware minimisation around any optimizer (Foret et al. 2021)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Sam(torch.optim.Optimizer):
    """The gradient is taken where the loss is worst within `rho` of the weights: w + rho g / ||g||_2 (equation 2).

    `base` makes the optimizer that takes the step, with the same groups; the learning rate is its. Twice the cost of a
    step: the loss and its gradient are computed at both places. With `adaptive`, the neighbourhood is measured against
    the size of each weight, w + rho w^2 g / || |w| g || (Kwon et al. 2021, equation 10).
    """

    def __init__(self, params: Any, base: Callable[..., torch.optim.Optimizer], rho: float, adaptive: bool):
        if not rho > 0:
            raise ValueError(f"optimizer.rho must be positive, {rho} came")
        self.rho, self.adaptive = rho, adaptive
        inner = base(params)
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
        with torch.enable_grad():
            loss = closure()
        moved = self._climb()
        if moved:
            with torch.enable_grad():
                closure()
        for p, by in moved:
            p.sub_(by)
        self.base.step()
        return loss

    def _climb(self) -> list[tuple[Tensor, Tensor]]:
        """Moves the weights to the worst place near by; what each was moved by."""
        moving = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not moving:
            return []
        sizes = [p.abs() if self.adaptive else torch.ones((), device=p.device) for p in moving]
        scaled = [size * p.grad for size, p in zip(sizes, moving, strict=True)]
        norm = torch.stack(torch._foreach_norm(scaled)).square().sum().sqrt()  # pyright: ignore[reportPrivateImportUsage]
        factor = self.rho / (norm + 1e-12)
        moved = [(p, size * g * factor) for p, size, g in zip(moving, sizes, scaled, strict=True)]
        for p, by in moved:
            p.add_(by)
        return moved

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self.param_groups, self.state = self.base.param_groups, self.base.state
