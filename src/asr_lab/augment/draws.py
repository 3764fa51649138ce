"""Random numbers from a given generator."""

import math

import torch
from torch import Generator


def uniform(low: float, high: float, generator: Generator) -> float:
    """A number in [low, high), or `low` where both are the same."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def below(n: int, generator: Generator) -> int:
    """A whole number in [0, n)."""
    return int(torch.randint(n, (), generator=generator))


def check_range(name: str, low: float, high: float, least: float = -math.inf) -> None:
    """
    Raises:
        ValueError: the range `min_{name}` to `max_{name}` is empty, goes below `least` or is not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high) and least <= low <= high):
        bound = f"from {least} on" if math.isfinite(least) else "min <= max"
        raise ValueError(f"min_{name} and max_{name} are a range ({bound}), {low} and {high} came")
