"""Muon: momentum whose singular values are made alike, for the matrices inside a network (Jordan 2024)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ADJUSTMENTS = ("original", "match_rms_adamw")


class Muon(torch.optim.Optimizer):
    """Matrices inside the network move along orthogonalised momentum, everything else by `rest`.

    b <- momentum b + (1 - momentum) g;  u = (1 - momentum) g + momentum b with `nesterov`, else b;
    w <- (1 - lr weight_decay) w - lr a O(u), O(u) is u with its singular values near 1 (`orthogonal`). a by
    `adjust_lr_fn`, for a matrix of R rows and C columns: `original` sqrt(max(1, R / C)) (Jordan 2024),
    `match_rms_adamw` 0.2 sqrt(max(R, C)) (Liu et al. 2025), with which lr and weight_decay mean what they mean to
    AdamW. On matrices this is torch.optim.Muon, many of one shape at once.

    A group may say with `hidden`, a list of bool, which of its tensors are inside the network; embeddings and output
    layers are not. Convolution kernels, which are no matrices, go to `rest` too, with all vectors. Both have one list
    of groups and one state, so that schedules, weight decay and checkpoints do not see the difference.
    """

    def __init__(
        self, params: Any, lr: float, momentum: float, nesterov: bool, ns_coefficients: tuple[float, float, float],
        ns_steps: int, eps: float, adjust_lr_fn: str, weight_decay: float, rest: Callable[..., torch.optim.Optimizer],
    ):  # fmt: skip
        if adjust_lr_fn not in ADJUSTMENTS:
            raise ValueError(f"optimizer.adjust_lr_fn={adjust_lr_fn}; choose from: {', '.join(ADJUSTMENTS)}")
        if not (lr > 0 and 0 <= momentum < 1 and weight_decay >= 0 and ns_steps >= 1 and len(ns_coefficients) == 3):
            raise ValueError(
                "optimizer: lr is positive, momentum in [0, 1), weight_decay not negative, ns_steps at least 1 and "
                f"ns_coefficients are three; {lr}, {momentum}, {weight_decay}, {ns_steps} and "
                f"{list(ns_coefficients)} came"
            )
        matrices, others = _split(params, weight_decay)
        self.rest = rest(others) if others else None
        if hasattr(self.rest, "eval") or getattr(self.rest, "needs_closure", False):
            raise ValueError(f"optimizer.rest: {type(self.rest).__name__} cannot be a part of Muon; choose AdamW")
        self.n_own = len(matrices)
        super().__init__(
            [*matrices, *(self.rest.param_groups if self.rest else [])],
            {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov, "eps": eps,
             "ns_coefficients": tuple(ns_coefficients), "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn},
        )  # fmt: skip
        self._share()

    def _share(self) -> None:
        if self.rest:
            self.rest.param_groups, self.rest.state = self.param_groups[self.n_own :], self.state

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
        if any(p.grad is not None and p.grad.is_sparse for group in self.param_groups for p in group["params"]):
            raise ValueError("Muon takes no sparse gradients; optimizer=adagrad does")
        for group in self.param_groups[: self.n_own]:
            if params := [p for p in group["params"] if p.grad is not None]:
                self._move(params, group)
        if self.rest:
            self.rest.step()
        return loss

    def _move(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
        if group["nesterov"]:
            momenta = torch._foreach_lerp(grads, momenta, group["momentum"])  # pyright: ignore
        alike: dict[torch.Size, list[int]] = {}
        for i, p in enumerate(params):
            alike.setdefault(p.shape, []).append(i)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])  # pyright: ignore
        for shape, places in alike.items():
            together = torch.stack([momenta[i] for i in places])
            updates = orthogonal(together, group["ns_coefficients"], group["ns_steps"], group["eps"])
            rate = group["lr"] * _adjustment(group["adjust_lr_fn"], *shape)
            for i, update in zip(places, updates, strict=True):
                params[i].add_(update, alpha=-rate)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


def orthogonal(matrices: Tensor, coefficients: tuple[float, float, float], n_steps: int, eps: float) -> Tensor:
    """(N, R, C) -> (N, R, C) in bfloat16: the same singular vectors, singular values near 1; by Newton-Schulz steps
    X <- a X + (b X X^T + c (X X^T)^2) X (Jordan 2024)."""
    a, b, c = coefficients
    x = matrices.bfloat16()
    is_tall = x.size(-2) > x.size(-1)
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(n_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def _adjustment(name: str, n_rows: int, n_columns: int) -> float:
    if name == "original":
        return math.sqrt(max(1, n_rows / n_columns))
    return 0.2 * math.sqrt(max(n_rows, n_columns))


def _split(params: Any, weight_decay: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(groups of matrices inside the network, groups of the rest)"""
    groups = list(params)
    if groups and not isinstance(groups[0], dict):
        groups = [{"params": groups}]
    split: tuple[list, list] = ([], [])
    for group in groups:
        tensors = list(group["params"])
        hidden = group.get("hidden", [True] * len(tensors))
        keys = {"weight_decay": weight_decay} | {k: v for k, v in group.items() if k not in ("params", "hidden")}
        for into, wanted in zip(split, (True, False), strict=True):
            chosen = [p for p, inside in zip(tensors, hidden, strict=True) if (inside and p.ndim == 2) is wanted]
            if chosen:
                into.append({"params": chosen, **keys})
    return split
