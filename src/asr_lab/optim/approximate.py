"""Gradients that are not those of the backward pass: two losses (SPSA), or a quantum computer's simulated read-out."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asr_lab.optim.processes import mean_over_processes

MOST_QUBITS = 20  # all outcomes of a register are laid out in memory


class Spsa(torch.optim.Optimizer):
    """Simultaneous perturbation (Spall 1992): two losses give a direction for all weights at once.

    w <- w - a_t (f(w + c_t d) - f(w - c_t d)) / (2 c_t) d, each element of d is 1 or -1 with probability 1/2,
    a_t = lr / (t + 1 + stability)^alpha, c_t = c / (t + 1)^gamma, t from 0. The backward pass of the closure is not
    used, so no clipping changes a step; the signs come from `seed` and the step, the same in every process, and the
    losses are those of all processes together. The decay is decoupled. Where a loss is not finite nothing moves, nor
    where `found_inf` says that the step is to be left out.
    """

    needs_closure = True  # for the training task, which has none to give in some trainings
    probing = False  # while the closure computes the first loss: its gradient is not that of the step
    _step_supports_amp_scaling = True  # leaves out a step by itself: see optim/tally.py

    def __init__(
        self, params: Any, lr: float, c: float, alpha: float, gamma: float, stability: float, seed: int,
        weight_decay: float,
    ):  # fmt: skip
        if not (lr > 0 and c > 0 and alpha >= 0 and gamma >= 0 and stability >= 0 and weight_decay >= 0):
            raise ValueError(
                "optimizer: lr and c are positive, alpha, gamma, stability and weight_decay not negative; "
                f"{lr}, {c}, {alpha}, {gamma}, {stability} and {weight_decay} came"
            )
        self.c, self.alpha, self.gamma, self.stability, self.seed = c, alpha, gamma, stability, seed
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """
        Raises:
            ValueError: no closure that computes the loss.
        """
        if closure is None:
            raise ValueError("SPSA needs a closure that computes the loss: step(closure)")
        state = self.state[self.param_groups[0]["params"][0]]
        t = state.setdefault("step", torch.zeros(()))
        n = int(t)
        c = self.c / (n + 1) ** self.gamma
        moving = [p for group in self.param_groups for p in group["params"]]
        signs = self._signs(moving, n)
        up, down = self._losses(closure, moving, signs, c)
        slope = (up - down) / (2 * c)
        goes = slope.isfinite() & (getattr(self, "found_inf", torch.zeros(())).to(slope.device) == 0)
        slope = torch.where(goes, slope, 0.0)
        found = dict(zip(map(id, moving), signs, strict=True))
        for group in self.param_groups:
            rate = group["lr"] / (n + 1 + self.stability) ** self.alpha
            for p in group["params"]:
                p.sub_(rate * (slope * found[id(p)] + goes * group["weight_decay"] * p))
        t += 1
        return (up + down) / 2

    def _losses(
        self, closure: Callable[[], Any], moving: list[Tensor], signs: list[Tensor], c: float
    ) -> tuple[Tensor, Tensor]:
        """The losses at w + c d and at w - c d; the weights are w again afterwards"""
        before = [p.clone() for p in moving]
        losses = []
        try:
            for side in (c, -c):
                for p, w, d in zip(moving, before, signs, strict=True):
                    p.copy_(w).add_(d, alpha=side)
                self.probing = side > 0
                with torch.enable_grad():
                    losses.append(torch.as_tensor(closure()).detach())
        finally:
            self.probing = False
            for p, w in zip(moving, before, strict=True):
                p.copy_(w)
        up, down = mean_over_processes(torch.stack(losses)).unbind()
        return up, down

    def _signs(self, moving: list[Tensor], n: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + n)
        return [(2 * torch.randint(2, p.shape, generator=generator) - 1).to(p) for p in moving]


class QuantumReadout:
    """Simulates, on a classical computer, how a quantum computer would read out a gradient (Jordan 2005; Gilyen,
    Arunachalam & Wiebe 2019): one run, a register of qubits for each coordinate, each read by phase estimation.

    A coordinate g in [-scale, scale) is the phase x = g / (2 scale), modulo 1, of a register of t qubits with N = 2^t
    outcomes. The inverse Fourier transform gives the outcome k with probability
    sin^2(pi N (x - k/N)) / (N^2 sin^2(pi (x - k/N))) (Nielsen & Chuang, section 5.2.1). t = bits + ceil(log2(2 +
    1 / (2 (1 - success)))) makes the first `bits` bits right with probability `success` at least (equation 5.35);
    outcomes are rounded to `bits`. Nothing of the speed of a quantum computer is here: the true gradient goes in.
    """

    def __init__(self, bits: int, success: float):
        if bits < 1:
            raise ValueError(f"optimizer.bits must be at least 1, {bits} came")
        if not 0 < success < 1:
            raise ValueError(f"optimizer.success is a probability, above 0 and below 1, {success} came")
        self.bits = bits
        self.n_qubits = bits + math.ceil(math.log2(2 + 1 / (2 * (1 - success))))
        if self.n_qubits > MOST_QUBITS:
            raise ValueError(
                f"optimizer.bits={bits} with success={success} needs registers of {self.n_qubits} qubits; "
                f"{MOST_QUBITS} can be simulated"
            )

    def __call__(self, g: Tensor, scale: Tensor | float, generator: torch.Generator) -> Tensor:
        """What is read where `g` stands; same shape, multiples of 2 scale / 2^bits"""
        phase = (g.double() / (2 * scale)).flatten().cpu()
        outcome = sample_outcomes(phase, self.n_qubits, generator)
        coarse = torch.round(outcome.double() * 2.0 ** (self.bits - self.n_qubits)) / 2**self.bits
        wrapped = (coarse + 0.5) % 1 - 0.5  # back to [-1/2, 1/2)
        return (wrapped.to(g.device) * (2 * scale)).view_as(g).to(g.dtype)


def outcome_probabilities(phase: Tensor, outcome: Tensor, n_qubits: int) -> Tensor:
    """Probability of an outcome of phase estimation of `phase` (turns) with 2^n_qubits outcomes, element by element"""
    n = 2**n_qubits
    off = phase - outcome / n
    off = off - torch.round(off)
    below = n * torch.sin(math.pi * off)
    return torch.where(below.abs() < 1e-9, 1.0, (torch.sin(math.pi * n * off) / below).square())


def sample_outcomes(phase: Tensor, n_qubits: int, generator: torch.Generator) -> Tensor:
    """Outcomes 0..2^n_qubits-1 for each element of `phase` (N,), exactly distributed; by rejection.

    With j the distance from the nearest outcome, the probability is at most min(1, 1 / (4 (|j| - 1/2)^2)), because
    |sin(pi x)| >= 2 |x| for |x| <= 1/2; outcomes are proposed from that.
    """
    n = 2**n_qubits
    nearest = torch.round(phase * n).long()
    distance = torch.arange(-(n // 2) + 1, n // 2 + 1, dtype=torch.double)
    bound = torch.where(distance.abs() < 1, 1.0, 1 / (4 * (distance.abs() - 0.5).square())).clamp(max=1.0)
    outcome = torch.empty_like(nearest)
    left = torch.arange(len(phase))
    while len(left):
        place = torch.multinomial(bound, len(left), replacement=True, generator=generator)
        proposed = (nearest[left] + distance[place].long()) % n
        accept = outcome_probabilities(phase[left], proposed.double(), n_qubits) / bound[place]
        keep = torch.rand(len(left), generator=generator, dtype=torch.double) < accept
        outcome[left[keep]] = proposed[keep]
        left = left[~keep]
    return outcome


class QuantumGradient(torch.optim.Optimizer):
    """Steps of gradient descent along what `QuantumReadout` reads of the gradient of the backward pass.

    `scale` is the largest magnitude that a register can hold; larger elements wrap around, as a phase does. null: the
    largest element of the whole gradient, which a real quantum computer would have to know before, and two steps of
    the register's grid above it, so that no rounding turns it around. The decay is added after the read-out.
    """

    def __init__(
        self, params: Any, lr: float, bits: int, success: float, scale: float | None, seed: int, weight_decay: float
    ):
        if not lr > 0 or not weight_decay >= 0 or (scale is not None and not scale > 0):
            raise ValueError(
                f"optimizer: lr and scale are positive, weight_decay is not negative; {lr}, {scale} and {weight_decay} "
                "came"
            )
        self.readout, self.scale, self.seed = QuantumReadout(bits, success), scale, seed
        self._margin = 1 / (1 - 2.0 ** (2 - max(bits, 3)))
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        state = self.state[self.param_groups[0]["params"][0]]
        t = state.setdefault("step", torch.zeros(()))
        moving = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if moving:
            grads = [p.grad.to_dense() for p, _ in moving]  # pyright: ignore[reportOptionalMemberAccess]
            largest = max((float(g.abs().max()) for g in grads if g.numel()), default=0.0)
            scale = self.scale or self._margin * largest
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(t))
            for (p, group), g in zip(moving, grads, strict=True):
                read = self.readout(g, scale, generator) if scale > 0 else g
                p.sub_(group["lr"] * (read + group["weight_decay"] * p))
            t += 1
        return loss
