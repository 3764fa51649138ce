"""What became of optimizer steps, counted where the gradients are."""

import torch
from torch import Tensor

NAMES = ("clipped", "skipped", "nonfinite", "nonfinite_in_a_row", "nonfinite_longest")


class Tally:
    """Counts over a whole training that never make a step wait for a GPU: they stay tensors until they are asked for.

    Steps taken; of them clipped, left out by the clipping choice, left out because the gradient was not finite, the
    last of those in a row, and the longest such row.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._counts = torch.zeros(len(NAMES), dtype=torch.long)

    def add(self, clipped: Tensor, skipped: Tensor, finite: Tensor) -> None:
        """One step: each () bool."""
        self.steps += 1
        self._counts = self._counts.to(finite.device)
        gone = (~finite).long()
        row = (self._counts[3] + 1) * gone
        now = torch.stack([(clipped & finite).long(), (skipped & finite).long(), gone])
        self._counts = torch.cat([self._counts[:3] + now, row[None], torch.maximum(self._counts[4], row)[None]])

    @property
    def nonfinite(self) -> Tensor:
        """() steps without a finite gradient, on their device"""
        return self._counts[2]

    def read(self) -> dict[str, int]:
        return {"steps": self.steps, **dict(zip(NAMES, self._counts.tolist(), strict=True))}

    def load(self, counts: dict[str, int]) -> None:
        self.steps = counts["steps"]
        self._counts = torch.tensor([counts.get(name, 0) for name in NAMES])


def leaves_out(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it skips a step by itself when its `found_inf` says so (torch's fused kernels): nobody has to wait."""
    # In a first step that it leaves out, fused SGD takes memory that nothing has written for its momentum.
    begins = optimizer.defaults.get("momentum") and not optimizer.state
    return getattr(optimizer, "_step_supports_amp_scaling", False) and not begins
