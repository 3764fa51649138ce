"""Residual branches skipped at random in training (Huang et al. 2016, "Deep networks with stochastic depth")."""

import torch
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """Drops a whole branch with probability `p`, drawn for every utterance, and scales the kept ones by 1 / (1 - p).

    `of_layer` makes p grow with the depth, as Pham et al. (2019, "Very deep self-attention networks for end-to-end
    speech recognition"): layer l of L has l / L * p. In evaluation nothing happens.
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"stochastic_depth is a probability in [0, 1), {p} came")
        self.p = p

    @classmethod
    def of_layer(cls, p: float, layer: int, n_layers: int) -> "StochasticDepth":
        """Layers count from 1."""
        return cls(p * layer / n_layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B,...) -> (B,...)"""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand((x.shape[0], *[1] * (x.dim() - 1)), device=x.device) >= self.p
        return x * (kept / (1 - self.p)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"p={self.p}"
