"""An optimizer as a training needs it, and in words where it cannot have it."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from asr_lab.errors import AsrLabError, ConfigError


def made(
    make: Callable[..., torch.optim.Optimizer], groups: list[dict[str, Any]], scaled: bool, n_accumulated: int
) -> torch.optim.Optimizer:
    """`scaled`: the loss is, for float16; `n_accumulated`: batches in a step.

    Raises:
        ConfigError: the optimizer computes the loss of a step itself, which is possible only where one batch is one
            step and nobody scales.
    """
    # A fused kernel would take gradients that are still scaled, and clipping must not.
    unfused = scaled and "fused" in inspect.signature(make).parameters
    optimizer = make(groups, fused=False) if unfused else make(groups)
    if getattr(optimizer, "needs_closure", False) and (scaled or n_accumulated != 1):
        name = type(optimizer).__name__
        if scaled:
            why = "trainer.precision=16-mixed scales; choose trainer.precision=bf16-mixed or 32-true"
        else:
            why = (
                f"trainer.accumulate_grad_batches={n_accumulated} spreads over batches; choose "
                "trainer.accumulate_grad_batches=1 and larger batches"
            )
        raise ConfigError(f"conf/optimizer: {name} computes the loss of a step itself, which {why}")
    return optimizer


def averages(optimizer: torch.optim.Optimizer) -> bool:
    """Whether what it scores is an average of weights that it holds itself (schedule-free, the subgradient method)."""
    return getattr(optimizer, "averages", hasattr(optimizer, "eval"))


def refusal(
    error: Exception, parameters: Iterable[tuple[str, Tensor]], optimizer: torch.optim.Optimizer
) -> ConfigError | None:
    """A step's error in words for people where it is about sparse gradients, else None."""
    sparse = [name for name, p in parameters if p.grad is not None and p.grad.is_sparse]
    if not sparse or isinstance(error, AsrLabError):
        return None
    return ConfigError(
        f"conf/optimizer: {type(optimizer).__name__} takes no sparse gradients, as {sparse[0]} has them; choose "
        "optimizer=adagrad, or a layer without sparse=True"
    )
