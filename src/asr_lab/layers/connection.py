"""What a recurrent layer hands to the next one."""

from typing import Protocol

from torch import Tensor, nn


class Connection(Protocol):
    """A `nn.Module`, built with `in_dim` (what the layer read) and `out_dim` (what it gives)."""

    out_dim: int  # what the next layer reads

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """What the layer read (B,U,in_dim) and gave (B,U,D) -> (B,U,out_dim)"""
        ...


class Plain(nn.Module):
    """What the layer gives."""

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.out_dim = out_dim

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y


class Projection(nn.Module):
    """What the layer gives, in fewer dimensions: the next layer has fewer input weights.

    The projection stands between the layers and not in the recurrence as in the LSTMP of Sak et al. 2014: that one
    has no fast kernel on CPU, this one serves every cell.
    """

    def __init__(self, in_dim: int, out_dim: int, d_projection: int):
        super().__init__()
        if not 1 <= d_projection <= out_dim:
            raise ValueError(
                f"connection.d_projection is 1 to {out_dim}, the width of a layer in all, {d_projection} came"
            )
        self.out_dim = d_projection
        self.project = nn.Linear(out_dim, d_projection)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.project(y)


class Residual(nn.Module):
    """What the layer read is added to what it gives, where the widths agree (all layers but the first)."""

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.out_dim = out_dim
        self.adds = in_dim == out_dim

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y if self.adds else y
