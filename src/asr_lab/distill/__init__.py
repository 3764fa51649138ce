"""Distillation: what a training step learns beside its labels."""

from typing import Any, Protocol

from torch import Tensor

from asr_lab.types import Batch


class Distillation(Protocol):
    """Not a `nn.Module`: what it holds is neither trained nor saved with the run."""

    def prepare(self, config: dict[str, Any], parts: Any) -> None:
        """Called once before training, with the run's configuration and its asr_lab.build.Parts."""
        ...

    def __call__(
        self, losses: Tensor, decoder: Any, batch: Batch, hidden: Tensor, lens: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses (B,) of a training step -> the (B,) to train on, and their terms (B,) to log"""
        ...


__all__ = ["Distillation"]
