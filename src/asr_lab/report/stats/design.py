"""Columns of a linear model with factors, and least squares that take any grid: unbalanced, or with empty cells."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from asr_lab.report.stats.rates import Array

Levels = Mapping[str, Sequence[str]]


def codes(levels: Levels, n: int) -> dict[str, tuple[list[str], Array]]:
    """Per factor its levels in order of appearance, and which one each of the n runs has, as an index (n,).

    Raises:
        ValueError: a factor does not say the level of every run.
    """
    found = {}
    for name, values in levels.items():
        if len(values) != n:
            raise ValueError(f"{name}: {len(values)} levels for {n} values")
        order = list(dict.fromkeys(map(str, values)))
        place = {level: i for i, level in enumerate(order)}
        found[name] = (order, np.array([place[str(v)] for v in values], int))
    return found


def indicators(coded: dict[str, tuple[list[str], Array]], term: tuple[str, ...]) -> Array:
    """(n, product of the numbers of levels): a column of 0 and 1 for each combination of levels of the term."""
    sizes = [len(coded[name][0]) for name in term]
    index = np.ravel_multi_index([coded[name][1].astype(int) for name in term], sizes)
    return np.eye(int(np.prod(sizes)))[index]


def combined(coded: dict[str, tuple[list[str], Array]], term: tuple[str, ...]) -> list[str]:
    """Names of `indicators`' columns."""
    return [", ".join(c) for c in product(*(coded[name][0] for name in term))]


def fit(columns: Sequence[Array], y: Array) -> tuple[float, int]:
    """(residual sum of squares, rank) of least squares on an intercept and these columns."""
    x = np.hstack([np.ones((len(y), 1)), *columns])
    solution, _, rank, _ = np.linalg.lstsq(x, y, rcond=1e-10)
    residual = y - x @ solution
    left = float(residual @ residual)
    return left if left > 1e-20 * float(y @ y) else 0.0, int(rank)  # what rounding left is nothing
