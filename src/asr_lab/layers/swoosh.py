"""The activations of Zipformer (Yao et al. 2023, section 3.4)."""

from torch import Tensor, nn


class SwooshL(nn.Module):
    """log(1 + exp(x - 4)) - 0.08 x - 0.035: behind weights that are mostly off."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x - 4) - 0.08 * x - 0.035


class SwooshR(nn.Module):
    """log(1 + exp(x - 1)) - 0.08 x - 0.313261687: zero at zero."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x - 1) - 0.08 * x - 0.313261687
