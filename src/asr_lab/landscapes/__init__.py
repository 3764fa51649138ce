"""Toy problems with known answers, on which one sees what optimizers and clipping do in seconds.

A landscape is a module whose parameters are searched for their best values. Its least loss is 0, and its `gap` is 1
where training begins (copy: at guessing) and 0 at the optimum, so that the same learning rates make sense on all of
them.
"""

from typing import Any, Protocol

import torch
from torch import Tensor


class Landscape(Protocol):
    """What the task of a toy run asks of a landscape, which is also a module."""

    n_batches: int  # training steps of an epoch
    n_scored: int  # batches that score it; 1 where the objective is known in closed form
    score_names: tuple[str, ...]  # keys of `scores`

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What is random in one batch; made on the CPU."""
        ...

    def loss(self, *drawn: Tensor) -> Tensor:
        """() what is trained on"""
        ...

    def scores(self, *drawn: Tensor) -> dict[str, Tensor]:
        """() each: `gap`, the excess loss as a share of that at the start, and what else says how far it is"""
        ...

    def parameters(self) -> Any: ...


def generator_of(*numbers: int) -> torch.Generator:
    """A generator for one place of a run: the seed, the split, the epoch, the batch."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % 2**61
    return torch.Generator().manual_seed(mixed)


def at_least(least: float, **values: float) -> None:
    """
    Raises:
        ValueError: a value is below `least`, or no number.
    """
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"landscape.{name} must be at least {least}, {value} came")


__all__ = ["Landscape", "at_least", "generator_of"]
