"""Which part of a grid fits a budget and still answers the question: a D-optimal fraction.

Cells are rows of a linear model with effects of the named contrasts. They are added one by one, each time the one that
adds most information (the logarithm of the determinant of X'X) for its cost, and then exchanged while that helps
(Fedorov 1972; Cook & Nachtsheim 1980). What a fraction costs in certainty is said for each contrast: how much longer
the standard errors of its effects are than with the whole grid.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asr_lab.errors import ConfigError, nearest

RIDGE = 1e-6


@dataclass(frozen=True)
class Fraction:
    """Part of a grid."""

    kept: list[int]  # places of its cells
    seconds: float
    inflation: dict[str, float]  # contrast -> its standard errors, as a multiple of the whole grid's


def fraction(
    cells: Sequence[Mapping[str, Any]],
    seconds: Sequence[float],
    budget_s: float,
    contrasts: Sequence[str] = (),
) -> Fraction:
    """The cells that fit a budget and keep the contrasts: axes, or several joined by `*` for their interaction.

    Without contrasts, the effect of each axis but the seed.

    Raises:
        ConfigError: no such axis; the whole grid does not tell the contrasts apart; or the budget is too small for it,
            with what it takes at least.
    """
    names = list(dict.fromkeys(axis for cell in cells for axis in cell))
    contrasts = list(contrasts) or [n for n in names if n != "seed" and len({repr(c.get(n)) for c in cells}) > 1]
    x, columns = design(cells, contrasts)
    cost = np.asarray(seconds, dtype=float)
    rank = np.linalg.matrix_rank(x)
    if rank < x.shape[1]:
        raise ConfigError(f"the whole grid cannot tell {', '.join(contrasts)} apart; name fewer contrasts")
    if cost.sum() <= budget_s:
        return Fraction(list(range(len(cells))), float(cost.sum()), dict.fromkeys(contrasts, 1.0))
    kept = _greedy(x, cost, budget_s)
    _exchange(x, cost, budget_s, kept)
    if np.linalg.matrix_rank(x[sorted(kept)]) < rank:
        least = _least(x, cost)
        raise ConfigError(f"--budget: {', '.join(contrasts)} take at least {least:.0f} s, {budget_s:.0f} s came")
    return Fraction(sorted(kept), float(cost[sorted(kept)].sum()), _inflation(x, sorted(kept), columns))


def design(cells: Sequence[Mapping[str, Any]], contrasts: Sequence[str]) -> tuple[np.ndarray, dict[str, list[int]]]:
    """((N, P) intercept and effect-coded columns, which columns belong to a contrast)

    A value that a cell does not have is a level of its own, so conditional axes nest as they should.
    """
    axes = list(dict.fromkeys(axis for contrast in contrasts for axis in contrast.split("*")))
    coded = {}
    for axis in axes:
        levels = list(dict.fromkeys(repr(cell.get(axis)) for cell in cells))
        known = [a for cell in cells for a in cell]
        if axis not in known:
            raise ConfigError(f"--contrast {axis}: no such axis{nearest(axis, set(known))}")
        place = np.array([levels.index(repr(cell.get(axis))) for cell in cells])
        columns = (place[:, None] == np.arange(len(levels) - 1)).astype(float)
        columns[place == len(levels) - 1] = -1.0
        coded[axis] = columns
    parts, where, at = [np.ones((len(cells), 1))], {}, 1
    terms = dict.fromkeys([*axes, *contrasts])  # an interaction brings its main effects
    for term in terms:
        factors = [coded[axis] for axis in term.split("*")]
        columns = factors[0]
        for other in factors[1:]:
            columns = (columns[:, :, None] * other[:, None, :]).reshape(len(cells), -1)
        parts.append(columns)
        where[term] = list(range(at, at + columns.shape[1]))
        at += columns.shape[1]
    return np.hstack(parts), {c: where[c] for c in contrasts}


def _greedy(x: np.ndarray, cost: np.ndarray, budget: float) -> set[int]:
    inverse = np.eye(x.shape[1]) / RIDGE
    gain = np.einsum("np,pq,nq->n", x, inverse, x)
    kept: set[int] = set()
    free = np.ones(len(x), dtype=bool)
    left = budget
    while True:
        fits = free & (cost <= left)
        if not fits.any():
            return kept
        best = int(np.argmax(np.where(fits, np.log1p(gain) / cost, -np.inf)))
        u = inverse @ x[best]
        inverse -= np.outer(u, u) / (1 + gain[best])  # Sherman & Morrison 1950
        gain = gain - (x @ u) ** 2 / (1 + x[best] @ u)
        kept.add(best)
        free[best] = False
        left -= cost[best]


def _exchange(x: np.ndarray, cost: np.ndarray, budget: float, kept: set[int], rounds: int = 3) -> None:
    for _ in range(rounds):
        changed = False
        for out in sorted(kept):
            rest = sorted(kept - {out})
            inverse = np.linalg.inv(x[rest].T @ x[rest] + RIDGE * np.eye(x.shape[1]))
            gain = np.einsum("np,pq,nq->n", x, inverse, x)
            room = budget - cost[rest].sum()
            fits = cost <= room + 1e-9
            fits[rest] = False
            best = int(np.argmax(np.where(fits, gain, -np.inf)))
            if gain[best] > gain[out] * (1 + 1e-9):
                kept.remove(out)
                kept.add(best)
                changed = True
        if not changed or len(kept) > 500:  # large fractions are near the best already
            return


def _least(x: np.ndarray, cost: np.ndarray) -> float:
    """Seconds of the cheapest cells, taken in order of cost, that tell all contrasts apart"""
    basis: list[int] = []
    for i in np.argsort(cost, kind="stable"):
        if np.linalg.matrix_rank(x[[*basis, int(i)]]) > len(basis):
            basis.append(int(i))
            if len(basis) == x.shape[1]:
                break
    return float(cost[basis].sum())


def _inflation(x: np.ndarray, kept: list[int], columns: dict[str, list[int]]) -> dict[str, float]:
    whole = np.linalg.inv(x.T @ x)
    part = np.linalg.inv(x[kept].T @ x[kept])
    found = {}
    for contrast, at in columns.items():
        ratio = [np.trace(m[np.ix_(at, at)]) for m in (part, whole)]
        found[contrast] = float(np.sqrt(ratio[0] / ratio[1]))
    return found


def seconds_of(text: str) -> float:
    """`90s`, `30m`, `2h`, `1h30m`, `3d`

    Raises:
        ConfigError: it is no time.
    """
    found = re.findall(r"(\d+(?:\.\d+)?)\s*(d|h|m|min|s)", text.strip())
    if not found or re.sub(r"(\d+(?:\.\d+)?)\s*(d|h|min|m|s)\s*", "", text.strip()):
        raise ConfigError(f"--budget {text}: a time such as 2h, 90m or 1h30m is wanted")
    units = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1}
    return sum(float(n) * units[unit] for n, unit in found)
