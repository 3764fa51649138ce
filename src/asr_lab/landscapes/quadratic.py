"""Quadratics: one with a long narrow valley, one whose gradients are noisy with infinite variance."""

import math

import torch
from torch import Tensor, nn

from asr_lab.landscapes import at_least, generator_of


class IllConditioned(nn.Module):
    """f(w) = (w - w*)' A (w - w*) / 2 with eigenvalues of A from 1 / condition to 1, evenly on a logarithmic scale.

    Training begins at w = 0 with an excess loss of 1, to which every eigenvector of A contributes the same. Gradient
    descent with learning rate a then has the gap mean_i (1 - a lambda_i)^(2t) after t steps; it converges for a < 2, as
    the largest eigenvalue is 1 (Nesterov 2004, section 2.1.5; Goh, "Why momentum really works", Distill 2017).
    """

    score_names = ("loss", "gap")
    n_scored = 1

    def __init__(self, seed: int, dim: int, condition: float, rotated: bool, n_batches: int):
        """
        Args:
            rotated: the eigenvectors are a random rotation of the axes; else they are the axes, which favours
                optimizers that scale each coordinate by itself.
        """
        super().__init__()
        at_least(1, dim=dim, condition=condition, n_batches=n_batches)
        self.n_batches = n_batches
        g = generator_of(seed)
        values = torch.logspace(-math.log10(condition), 0, dim, dtype=torch.double)
        signs = 2.0 * torch.randint(2, (dim,), generator=g) - 1
        optimum = signs * (2 / (dim * values)).sqrt()
        root = values.sqrt().diag()
        if rotated:
            q, _ = torch.linalg.qr(torch.randn(dim, dim, generator=g, dtype=torch.double))
            optimum, root = q @ optimum, root @ q.T
        # f = ||R (w - w*)||^2 / 2 with R'R = A: never below 0, whatever is rounded.
        self.register_buffer("root", root.float(), persistent=False)
        self.register_buffer("optimum", optimum.float(), persistent=False)
        self.root: Tensor
        self.optimum: Tensor
        self.w = nn.Parameter(torch.zeros(dim))

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return ()

    def loss(self) -> Tensor:
        return (self.root @ (self.w - self.optimum)).square().sum() / 2

    def scores(self) -> dict[str, Tensor]:
        gap = (self.root.double() @ (self.w - self.optimum).double()).square().sum() / 2
        return {"loss": gap, "gap": gap}


class HeavyTailed(nn.Module):
    """f(w) = ||w - w*||^2 / 2, and each training step sees the gradient w - w* + noise.

    The elements of the noise are independent and symmetric alpha-stable with scale `noise`: their variance is infinite
    for `tail_index` < 2, at 2 they are Gaussian with variance 2 noise^2. Such noise has been measured in the training
    of attention models; there plain SGD may be far away at any step, and clipping mends it (Zhang et al., "Why are
    adaptive methods good for attention models?", NeurIPS 2020; Gorbunov et al., NeurIPS 2020). Training begins at
    w = 0 with f = 1. Scores are f itself, without noise.
    """

    score_names = ("loss", "gap")
    n_scored = 1

    def __init__(self, seed: int, dim: int, tail_index: float, noise: float, n_batches: int):
        super().__init__()
        at_least(1, dim=dim, n_batches=n_batches)
        at_least(0, noise=noise)
        if not 1 < tail_index <= 2:
            raise ValueError(
                f"landscape.tail_index is above 1, so that the noise has a mean, and at most 2; {tail_index} came"
            )
        self.tail_index, self.noise, self.n_batches = tail_index, noise, n_batches
        optimum = torch.randn(dim, generator=generator_of(seed))
        self.register_buffer("optimum", optimum * (math.sqrt(2) / optimum.norm()), persistent=False)
        self.optimum: Tensor
        self.w = nn.Parameter(torch.zeros(dim))

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """((D,) noise of the gradient,)"""
        return (self.noise * symmetric_stable(self.tail_index, len(self.w), generator),)

    def loss(self, noise: Tensor) -> Tensor:
        """f plus a term without a mean whose gradient is the noise"""
        return (self.w - self.optimum).square().sum() / 2 + noise @ (self.w - self.optimum)

    def scores(self, noise: Tensor) -> dict[str, Tensor]:
        gap = (self.w - self.optimum).double().square().sum() / 2
        return {"loss": gap, "gap": gap}


def symmetric_stable(alpha: float, n: int, generator: torch.Generator) -> Tensor:
    """(N,) draws with the characteristic function exp(-|t|^alpha) (Chambers, Mallows & Stuck 1976)"""
    u, v = torch.rand(2, n, generator=generator, dtype=torch.double)
    angle = (u - 0.5) * math.pi
    waiting = -torch.log1p(-v).clamp(max=-1e-300)  # exponentially distributed
    spread = (torch.cos((1 - alpha) * angle) / waiting) ** ((1 - alpha) / alpha)
    return (torch.sin(alpha * angle) / torch.cos(angle) ** (1 / alpha) * spread).float()
