"""No average: the weights that are trained are those that are scored."""

from typing import Any

from torch import nn


class NoAveraging:
    """Does nothing."""

    n, trains_on = 0, False

    def begin(self, module: nn.Module, n_steps: int, steps_per_epoch: int) -> None:
        pass

    def update(self, step: int) -> None:
        pass

    def use(self) -> None:
        pass

    def release(self) -> None:
        pass

    def save(self, checkpoint: dict[str, Any]) -> None:
        pass

    def load(self, checkpoint: dict[str, Any]) -> None:
        pass
