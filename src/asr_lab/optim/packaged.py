"""Optimizers of the package pytorch-optimizer, with every keyword named: its own classes swallow a misspelt one."""

from collections.abc import Callable
from typing import Any

import pytorch_optimizer
import torch


class _Checked:
    """Says in one line what the package says with errors of its own, and leaves out a step that has no gradient."""

    param_groups: list[dict[str, Any]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """
        Raises:
            ValueError: sparse gradients, or weights that are those to be scored.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if any(g.is_sparse for g in grads):
            raise ValueError(f"{type(self).__name__} takes no sparse gradients; optimizer=adagrad does")
        if not all(group.get("train_mode", True) for group in self.param_groups):
            raise ValueError(f"{type(self).__name__}.step() at the averaged weights; call train() before training")
        if grads:  # else the package would count the step, and average over it
            super().step()  # pyright: ignore[reportAttributeAccessIssue]
        return loss


def _check_rate(lr: float) -> None:
    if not lr > 0:
        raise ValueError(f"optimizer.lr must be positive, {lr} came")


class Lion(_Checked, pytorch_optimizer.Lion):
    """Sign of an interpolated momentum (Chen et al. 2023, algorithm 2), t from 1:

    w <- w - lr (sign(b1 m + (1 - b1) g) + weight_decay w);  m <- b2 m + (1 - b2) g.

    The decay is decoupled; without `weight_decouple` it is part of g, with `fixed_decay` lr does not scale it.
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float, weight_decouple: bool,
        fixed_decay: bool,
    ):  # fmt: skip
        _check_rate(lr)
        super().__init__(params, lr, betas, weight_decay, weight_decouple, fixed_decay)


class Prodigy(_Checked, pytorch_optimizer.Prodigy):
    """Adam that finds its learning rate (Mishchenko & Defazio 2024, algorithm 4): the rate is lr times an estimate d of
    the distance to the solution, which starts at `d0` and never falls.

    With g the gradient, w0 the first weights, b3 = sqrt(b2) where `beta3` is null:
    r <- b3 r + lr d^2 / d0 <g, w0 - w>;  s <- b3 s + lr d^2 / d0 g;  d' = max(d, d_coef r / ||s||_1), at most
    d growth_rate;  m <- b1 m + (1 - b1) d g;  v <- b2 v + (1 - b2) d^2 g^2;  w <- w - lr d m / (sqrt(v) + d' eps).
    r and s are over all groups, whose learning rates must be the same. `bias_correction` multiplies lr by
    sqrt(1 - b2^t) / (1 - b1^t); `safeguard_warmup` leaves lr out of s. The decay is decoupled (lr d weight_decay w);
    without `weight_decouple` it is part of g, with `fixed_decay` lr does not scale it. Each step asks the device for d.
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], beta3: float | None, d0: float, d_coef: float,
        growth_rate: float, eps: float, weight_decay: float, weight_decouple: bool, fixed_decay: bool,
        bias_correction: bool, safeguard_warmup: bool,
    ):  # fmt: skip
        _check_rate(lr)
        if not (d0 > 0 and d_coef > 0 and growth_rate > 1):
            raise ValueError(
                "optimizer: d0 and d_coef are positive and growth_rate is above 1; "
                f"{d0}, {d_coef} and {growth_rate} came"
            )
        super().__init__(
            params, lr, betas, beta3, d0, d_coef, growth_rate, weight_decay, weight_decouple, fixed_decay,
            bias_correction, safeguard_warmup, eps,
        )  # fmt: skip


class ScheduleFreeSGD(_Checked, pytorch_optimizer.ScheduleFreeSGD):
    """SGD whose averaged weights replace a falling schedule (Defazio et al. 2024, equations 3 to 5), t from 1:

    y = (1 - momentum) z + momentum x;  z <- z - lr (g(y) + weight_decay y);  x <- (1 - c) x + c z.

    Training is at y, x is scored: `train()` and `eval()` put one or the other into the weights. c is the share of
    t^r lr_max^weight_lr_power in its sum so far: 1 / t where lr is constant and r 0. lr rises over `warmup_steps`.
    The decay is part of the gradient.
    """

    def __init__(
        self, params: Any, lr: float, momentum: float, weight_decay: float, warmup_steps: int, r: float,
        weight_lr_power: float,
    ):  # fmt: skip
        _check_rate(lr)
        super().__init__(params, lr, momentum, weight_decay, r, weight_lr_power, warmup_steps)


class ScheduleFreeAdamW(_Checked, pytorch_optimizer.ScheduleFreeAdamW):
    """`ScheduleFreeSGD` with Adam's second moment (Defazio et al. 2024, algorithm 1): betas[0] in place of momentum,

    v <- b2 v + (1 - b2) g^2;  z <- z - lr (g / (sqrt(v / (1 - b2^t)) + eps) + weight_decay y).

    The decay is decoupled, at y. With `ams_bound`, v is the largest so far (Reddi et al. 2018).
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float, warmup_steps: int,
        r: float, weight_lr_power: float, ams_bound: bool,
    ):  # fmt: skip
        _check_rate(lr)
        super().__init__(
            params, lr, betas, weight_decay, r, weight_lr_power, warmup_steps, decoupling_c=0,
            ams_bound=ams_bound, eps=eps,
        )  # fmt: skip
