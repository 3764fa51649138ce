"""Which factor matters: analysis of variance of a grid's error rates; failed runs are counted, never dropped silently.

Fisher, "Statistical methods for research workers", 1925; sums of squares of type II (Yates, JASA 1934; Langsrud,
Statistics and Computing 2003), so a grid with failed cells is no obstacle. What differs between runs of one
configuration, the seeds, is the error that every factor is measured by.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.design import codes, fit, indicators
from asr_lab.report.stats.rates import LEVEL, Array, Interval

SEED = "seed"
_NONE = Interval(math.nan, math.nan, math.nan)


class Term(NamedTuple):
    """One line of the table."""

    name: str  # `encoder`, `encoder x clipping`, or one of the last lines: `higher interactions`, `seeds`
    df: int
    sum_squares: float
    share: float  # eta squared: of the whole sum of squares
    omega_squared: float  # the same without what chance alone gives (Hays 1963); may be a little below 0
    f: float  # nan where nothing is left to measure by
    p: float
    partial: Interval  # of what the other terms leave; noncentral F (Steiger, Psychological Methods 2004)


class Effect(NamedTuple):
    """One level of a factor."""

    level: str
    mean: Interval  # as if every other factor had each of its levels equally often
    effect: Interval  # that mean minus the mean over the factor's levels
    n: int  # runs with a value
    n_censored: int  # runs that ended worse than any number
    n_missing: int  # runs without any result


class Factorial(NamedTuple):
    """The whole analysis."""

    terms: list[Term]
    effects: dict[str, list[Effect]]
    n: int  # runs in the sums
    ranks: bool  # of ranks of the values instead of the values
    error: str  # what the terms are measured by
    notes: list[str]  # what a reader must know: failures, empty cells, no repeats


def factorial(
    values: ArrayLike,
    levels: Mapping[str, Sequence[str]],
    *,
    seed: str = SEED,
    ranks: bool | None = None,
    level: float = LEVEL,
) -> Factorial:
    """Main effects and two-factor interactions of every factor on `values` (n,), one for each run.

    Args:
        values: error rates; nan: no result (never ran, preempted); inf: censored, worse than any number (exploded).
        levels: per factor the level of each run. A factor called `seed` enters as a main effect alone: what a seed
            does everywhere.
        ranks: analyse ranks (Conover & Iman, The American Statistician 1981), where censored runs share the last
            place. None: if there are censored runs, for no mean holds an infinite one.

    Raises:
        ValueError: fewer than three runs with a value, or lengths that differ.
    """
    y = np.asarray(values, float)
    coded = codes(levels, len(y))
    censored, missing = np.isinf(y), np.isnan(y)
    ranks = bool(censored.any()) if ranks is None else ranks
    used = ~missing if ranks else np.isfinite(y)
    if used.sum() < 3:
        raise ValueError(f"{int(used.sum())} runs with a value: an analysis of variance takes three or more")
    if ranks:
        from scipy.stats import rankdata

        y = np.where(missing, np.nan, rankdata(np.where(missing, np.inf, y)))
    factors = [name for name, (order, index) in coded.items() if len(set(index[used])) > 1 and name != seed]
    seeded = seed in coded and len(set(coded[seed][1][used])) > 1
    inside = {name: (coded[name][0], coded[name][1][used]) for name in [*factors, *([seed] if seeded else [])]}
    notes = _notes(coded, censored, missing, ranks)
    terms, error, mse, df = _table(y[used], inside, factors, seed if seeded else None, level, notes)
    effects = {name: _effects(name, y[used], inside, mse, df, level, coded, censored, missing) for name in inside}
    return Factorial(terms, effects, int(used.sum()), ranks, error, notes)


def _table(y: Array, coded, factors, seed, level, notes) -> tuple[list[Term], str, float, int]:
    """(terms, what they are measured by, its mean square, its degrees of freedom)."""
    main = [(f,) for f in factors] + ([(seed,)] if seed else [])
    pairs = list(combinations(factors, 2))
    model = [*main, *pairs]
    columns = {term: indicators(coded, term) for term in model}
    total = float(((y - y.mean()) ** 2).sum())
    rss, rank = fit(list(columns.values()), y)
    cells = [indicators(coded, tuple(factors))] if factors else []
    pure, pure_rank = fit([*cells, *([columns[(seed,)]] if seed else [])], y)
    pure_df = len(y) - pure_rank
    higher, higher_df = max(0.0, rss - pure), pure_rank - rank
    repeats = pure_df > 0
    mse, df = (
        (pure / pure_df, pure_df) if repeats else (rss / (len(y) - rank) if len(y) > rank else math.nan, len(y) - rank)
    )
    error = "seeds of one configuration" if repeats else "interactions of three factors or more" if df else "nothing"
    if not repeats:
        notes.append(
            "no configuration was run twice: "
            + (
                "interactions of three or more factors stand for the error"
                if df
                else "nothing is left to measure by, so there is no test"
            )
        )
    terms = []
    for term in model:
        others = [t for t in model if t != term and not set(term) < set(t)]
        without, rank_without = fit([columns[t] for t in others], y)
        with_it, rank_with = fit([columns[t] for t in [*others, term]], y)
        if rank_with == rank_without:
            notes.append(f"{' x '.join(term)}: cannot be told from the other factors in this grid")
            continue
        terms.append(
            _term(" x ".join(term), rank_with - rank_without, max(0.0, without - with_it), total, mse, df, level)
        )
    if higher_df > 0 and repeats:
        terms.append(_term("higher interactions", higher_df, higher, total, mse, df, level))
    if df > 0:
        rest = pure if repeats else rss
        share = rest / total if total > 0 else math.nan
        terms.append(Term("seeds" if repeats else "rest", df, rest, share, math.nan, math.nan, math.nan, _NONE))
    return terms, error, mse, df


def _term(name: str, df: int, ss: float, total: float, mse: float, df_error: int, level: float) -> Term:
    from scipy.special import fdtrc

    share = ss / total if total > 0 else math.nan
    if not df_error or not mse > 0:
        return Term(name, df, ss, share, math.nan, math.nan, math.nan, _NONE)
    f = ss / df / mse
    partial = ss / (ss + df_error * mse)
    low, high = (_noncentrality(f, df, df_error, tail) for tail in ((1 + level) / 2, (1 - level) / 2))
    n = df + df_error + 1
    inside = Interval(partial, low / (low + n), high / (high + n))
    omega = (ss - df * mse) / (total + mse)
    return Term(name, df, ss, share, omega, f, float(fdtrc(df, df_error, f)), inside)


def _noncentrality(f: float, df: int, df_error: int, tail: float) -> float:
    """The noncentrality at which F is below `f` with probability `tail`; 0 where even the central F is less often."""
    from scipy.optimize import brentq
    from scipy.stats import f as central
    from scipy.stats import ncf

    if central.cdf(f, df, df_error) <= tail:
        return 0.0
    high = 10.0 + 4 * f * df
    while ncf.cdf(f, df, df_error, high) > tail and high < 1e6:
        high *= 2
    return brentq(lambda x: float(ncf.cdf(f, df, df_error, x)) - tail, 1e-9, high) if high < 1e6 else high  # type: ignore


def _effects(name, y, coded, mse, df, level, everyone, censored, missing) -> list[Effect]:
    """Marginal means of the model without interactions, which also a grid with empty cells allows."""
    from scipy.special import stdtrit

    x = np.hstack([np.ones((len(y), 1)), *(indicators(coded, (f,)) for f in coded)])
    inverse = np.linalg.pinv(x.T @ x, rcond=1e-10)
    beta = inverse @ x.T @ y
    start, contrasts = 1, np.zeros((len(coded[name][0]), x.shape[1]))
    contrasts[:, 0] = 1
    for f, (order, index) in coded.items():
        present = np.isin(np.arange(len(order)), index)
        contrasts[:, start : start + len(order)] = np.eye(len(order)) if f == name else present / present.sum()
        start += len(order)
    order, index = coded[name]
    present = np.isin(np.arange(len(order)), index)
    centred = contrasts - contrasts[present].mean(0)
    t = stdtrit(df, (1 + level) / 2) if df else math.nan
    effects = []
    for i, what in enumerate(order):
        here = everyone[name][1] == i
        pair = [_contrast(c, beta, inverse * mse, t) if present[i] else _NONE for c in (contrasts[i], centred[i])]
        n_used = int((index == i).sum())
        n_censored, n_missing = int((here & censored).sum()), int((here & missing).sum())
        effects.append(Effect(what, pair[0], pair[1], n_used, n_censored, n_missing))
    return effects


def _contrast(c: Array, beta: Array, covariance: Array, t: float) -> Interval:
    value, half = float(c @ beta), float(t * np.sqrt(max(0.0, c @ covariance @ c)))
    return Interval(value, value - half, value + half)


def _notes(coded, censored: Array, missing: Array, ranks: bool) -> list[str]:
    notes = []
    for what, which in (("censored", censored), ("without a result", missing)):
        if not which.any():
            continue
        where = [
            f"{name}={order[i]}: {n} of {int((index == i).sum())}"
            for name, (order, index) in coded.items()
            if len(order) > 1
            for i in range(len(order))
            if (n := int((index[which] == i).sum()))
        ]
        how = "hold the last ranks" if ranks and what == "censored" else "are not in the sums"
        notes.append(f"{int(which.sum())} of {len(which)} runs are {what} and {how} ({'; '.join(where)})")
    return notes
