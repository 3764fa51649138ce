"""Points drawn from a space of values: at random, or spread evenly by a Sobol sequence."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from asr_lab.errors import ConfigError, nearest

METHODS = ("random", "sobol")
KINDS = ("uniform", "log", "int", "choice")


def sampled(space: Any, where: str) -> list[dict[str, Any]]:
    """`n` cells of the axes of a space; the same ones for the same `seed`.

    Each axis is {uniform: [low, high]}, {log: [low, high]} (uniform in the logarithm), {int: [low, high]}, ends
    included, or {choice: [...]}. `sobol` is the scrambled sequence (Owen 1998): even in every axis, best with a power
    of 2 for n.

    Raises:
        ConfigError: a key is missing or unknown, or a range is none.
    """
    if not isinstance(space, Mapping):
        raise ConfigError(f"{where}: n, method, seed and axes are wanted, {space!r} came")
    for key in space:
        if key not in ("n", "method", "seed", "axes"):
            raise ConfigError(f"{where}: no such key '{key}'{nearest(str(key), ['n', 'method', 'seed', 'axes'])}")
    n, method, seed = space.get("n"), space.get("method", "random"), space.get("seed", 0)
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigError(f"{where}.n: a number of cells is wanted, {n!r} came")
    if method not in METHODS:
        raise ConfigError(f"{where}.method={method}; choose from: {', '.join(METHODS)}")
    axes = space.get("axes")
    if not isinstance(axes, Mapping) or not axes:
        raise ConfigError(f"{where}.axes: axes and their ranges are wanted, {axes!r} came")
    at = {name: _axis(values, f"{where}.axes.{name}") for name, values in axes.items()}
    return [
        {name: place(u) for (name, place), u in zip(at.items(), row, strict=True)}
        for row in _points(n, len(at), method, seed)
    ]


def _points(n: int, d: int, method: str, seed: int) -> list[list[float]]:
    """n points of [0, 1)^d"""
    import numpy as np

    if method == "random":
        return np.random.default_rng(seed).random((n, d)).tolist()
    import warnings

    from scipy.stats.qmc import Sobol

    with warnings.catch_warnings():  # said in the documentation: balance wants a power of 2
        warnings.simplefilter("ignore", UserWarning)
        return Sobol(d, scramble=True, rng=np.random.default_rng(seed)).random(n).tolist()


def _axis(values: Any, where: str) -> Callable[[float], Any]:
    """From [0, 1) to a value"""
    kind = next(iter(values)) if isinstance(values, Mapping) and len(values) == 1 else None
    if kind not in KINDS:
        raise ConfigError(f"{where}: one of {', '.join(KINDS)} with its values is wanted, {values!r} came")
    chosen = values[kind]
    if kind == "choice":
        if not isinstance(chosen, list | tuple) or not chosen:
            raise ConfigError(f"{where}.choice: a list of values is wanted, {chosen!r} came")
        return lambda u: chosen[min(int(u * len(chosen)), len(chosen) - 1)]
    try:
        low, high = map(float, chosen)
    except (TypeError, ValueError):
        raise ConfigError(f"{where}.{kind}: [low, high] is wanted, {chosen!r} came") from None
    if not low < high or (kind == "log" and low <= 0):
        raise ConfigError(f"{where}.{kind}: rising{' positive' * (kind == 'log')} ends are wanted, {chosen!r} came")
    if kind == "int":
        return lambda u: min(int(low + u * (high - low + 1)), int(high))
    if kind == "log":
        return lambda u: _rounded(math.exp(math.log(low) + u * (math.log(high) - math.log(low))))
    return lambda u: _rounded(low + u * (high - low))


def _rounded(value: float) -> float:
    """Six digits: a value that a person can repeat on a command line"""
    return float(f"{value:.6g}")
