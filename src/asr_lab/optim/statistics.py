"""What a forward pass leaves behind: batch norm's running means and variances."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics:
    """Those of all batch norms of a module, as they were before a step, for the case that the step is left out: one
    batch that is not finite would spoil them for good, weights or not."""

    def __init__(self, module: nn.Module):
        norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        self.now: list[Tensor] = [x for m in norms for x in (m.running_mean, m.running_var) if x is not None]
        self.before: list[Tensor] = []

    def keep(self) -> None:
        """Before each forward pass; only the first of a step counts (accumulated batches, two closures)."""
        if not self.before:
            self.before = [x.clone() for x in self.now]

    def take_back(self, gone: Tensor) -> None:
        """The step is over. () bool: whether it is left out; no device waits for the answer"""
        with torch.no_grad():
            for now, before in zip(self.now, self.before, strict=False):
                now.copy_(torch.where(gone, before, now))
        self.before = []
