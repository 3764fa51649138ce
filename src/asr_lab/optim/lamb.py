"""LAMB: Adam whose step is a share of each layer's size, for large batches (You et al. 2020)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Lamb(torch.optim.Optimizer):
    """You et al. 2020, algorithm 2, for each weight tensor w, t from 1:

    u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay w;  w <- w - lr phi(||w||) / ||u|| u,

    with m and v as Adam's and phi(x) = min(max(x, lowest), highest) of `norm_bounds`. The ratio is 1 where w or u is 0.
    The decay is decoupled from the moments, but part of ||u||. There is no clipping inside, as other implementations
    have it.
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float,
        norm_bounds: tuple[float, float],
    ):  # fmt: skip
        if not (lr > 0 and eps > 0 and weight_decay >= 0 and all(0 <= b < 1 for b in betas)):
            raise ValueError(
                "optimizer: lr and eps are positive, weight_decay is not negative and betas are in [0, 1); "
                f"{lr}, {eps}, {weight_decay} and {list(betas)} came"
            )
        lowest, highest = norm_bounds
        if not 0 <= lowest < highest:
            raise ValueError(f"optimizer.norm_bounds are [lowest, highest], not negative; {list(norm_bounds)} came")
        keys = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, keys | {"norm_bounds": tuple(norm_bounds)})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """
        Raises:
            ValueError: sparse gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if params := [p for p in group["params"] if p.grad is not None]:
                self._move(params, group)
        return loss

    def _move(self, params: list[Tensor], group: dict[str, Any]) -> None:
        updates = self._adam(params, group)
        if group["weight_decay"]:
            torch._foreach_add_(updates, params, alpha=group["weight_decay"])  # pyright: ignore
        size = torch.stack(torch._foreach_norm(params))  # pyright: ignore
        length = torch.stack(torch._foreach_norm(updates))  # pyright: ignore
        lowest, highest = group["norm_bounds"]
        ratio = torch.where((size > 0) & (length > 0), size.clamp(lowest, highest) / length, 1.0)
        torch._foreach_mul_(updates, list((ratio * -group["lr"]).unbind()))  # pyright: ignore
        torch._foreach_add_(params, updates)  # pyright: ignore

    def _adam(self, params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Adam's step of lr 1, without its sign."""
        beta1, beta2 = group["betas"]
        grads, first, second, steps = [], [], [], []
        for p in params:
            if p.grad is None or p.grad.is_sparse:
                raise ValueError("LAMB takes no sparse gradients; optimizer=adagrad does")
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            grads.append(p.grad)
            first.append(state["exp_avg"])
            second.append(state["exp_avg_sq"])
            steps.append(float(state["step"]))
        torch._foreach_lerp_(first, grads, 1 - beta1)  # pyright: ignore
        torch._foreach_mul_(second, beta2)  # pyright: ignore
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)  # pyright: ignore
        root = torch._foreach_div(second, [1 - beta2**t for t in steps])  # pyright: ignore
        torch._foreach_sqrt_(root)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(root, group["eps"])  # pyright: ignore[reportPrivateImportUsage]
        updates = torch._foreach_div(first, [1 - beta1**t for t in steps])  # pyright: ignore
        torch._foreach_div_(updates, root)  # pyright: ignore[reportPrivateImportUsage]
        return list(updates)
