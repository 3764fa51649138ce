"""Weight averaging: which weights are validated, scored and kept beside those that are trained."""

from typing import Any, Protocol

from torch import nn


class Averaging(Protocol):
    """What the training task asks of a choice. `n` says of how many sets of weights the average is."""

    n: int
    trains_on: bool  # whether the weights that are scored are other ones than those that the optimizer moves

    def begin(self, module: nn.Module, n_steps: int, steps_per_epoch: int) -> None:
        """Training of `module`, which is on its device, will take `n_steps` optimizer steps."""

    def update(self, step: int) -> None:
        """After optimizer step `step`, from 1."""

    def use(self) -> None:
        """The module holds the average from here on, if there is one; more than once does nothing."""

    def release(self) -> None:
        """The module holds the trained weights again."""

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Put the average into `state_dict`, and the rest of the state beside it."""

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Training goes on from a checkpoint: put the trained weights into `state_dict`, and take the rest back."""


__all__ = ["Averaging"]
