"""Means of named values over a split."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Means(Metric):
    """The mean of each of `names` over all batches of a split, which are equally large.

    The state is summed over processes; who computes also resets.
    """

    full_state_update = False

    def __init__(self, names: tuple[str, ...]):
        super().__init__()
        self.names = names
        for name in (*names, "batches"):
            self.add_state(f"sum_{name}", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: dict[str, Tensor]) -> None:
        """Add a batch: () of each name"""
        for name in self.names:
            setattr(self, f"sum_{name}", getattr(self, f"sum_{name}") + values[name])
        self.sum_batches = self.sum_batches + 1

    def compute(self) -> dict[str, Tensor]:
        """{name: ()}"""
        return {name: (getattr(self, f"sum_{name}") / self.sum_batches).float() for name in self.names}
