"""A sum of absolute values: it has kinks everywhere, and its least value lies on many of them."""

import torch
from torch import Tensor, nn

from asr_lab.landscapes import at_least, generator_of


class L1Regression(nn.Module):
    """f(w) = mean_i |x_i' w - y_i| - f*, with y = X w* but for a share of outliers, which are anything.

    The least absolute deviations leave the outliers alone and find w* exactly, as long as they are few (Candes & Tao,
    "Decoding by linear programming", 2005), which a linear program can confirm. Near w* the slope does not vanish: a
    step of constant length overshoots, so that a constant learning rate circles at a distance proportional to it, while
    steps that diminish, or those of Polyak, arrive (Shor 1985; Boyd & Park, lecture notes of EE364b). Training begins
    at w = 0 with f = 1; all examples are in every batch.
    """

    score_names = ("loss", "gap")
    n_scored = 1

    def __init__(self, seed: int, dim: int, n_examples: int, outliers: float, n_batches: int):
        """
        Args:
            outliers: their share of the examples, below a half.
        """
        super().__init__()
        at_least(1, dim=dim, n_batches=n_batches)
        at_least(2 * dim, n_examples=n_examples)
        if not 0 <= outliers < 0.5:
            raise ValueError(f"landscape.outliers is a share, at least 0 and below 0.5; {outliers} came")
        self.n_batches = n_batches
        g = generator_of(seed)
        x = torch.randn(n_examples, dim, generator=g, dtype=torch.double)
        optimum = torch.randn(dim, generator=g, dtype=torch.double)
        errors = torch.zeros(n_examples, dtype=torch.double)
        n_outliers = round(outliers * n_examples)
        # As wide as the answers themselves, and no symmetry that would help least squares.
        errors[:n_outliers] = optimum.norm() * torch.randn(n_outliers, generator=g, dtype=torch.double).abs()
        scale = (x @ optimum + errors).abs().mean() - errors.abs().mean()
        if not scale > 0:
            raise ValueError(f"landscape.outliers={outliers} hide the answer; choose a smaller share")
        for name, value in (("x", x), ("optimum", optimum / scale), ("errors", errors / scale)):
            self.register_buffer(name, value.float(), persistent=False)
        self.x: Tensor
        self.optimum: Tensor
        self.errors: Tensor
        self.w = nn.Parameter(torch.zeros(dim))

    @property
    def y(self) -> Tensor:
        """(N,) what is regressed on X (N, D)"""
        return self.x @ self.optimum + self.errors

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return ()

    def loss(self) -> Tensor:
        return self._gap(self.x, self.w - self.optimum, self.errors)

    def scores(self) -> dict[str, Tensor]:
        gap = self._gap(self.x.double(), (self.w - self.optimum).double(), self.errors.double())
        return {"loss": gap, "gap": gap}

    @staticmethod
    def _gap(x: Tensor, away: Tensor, errors: Tensor) -> Tensor:
        # From w* on, not from y: a difference of two nearly equal numbers would end in rounding.
        return ((x @ away - errors).abs() - errors.abs()).mean()
