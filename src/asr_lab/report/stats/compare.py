"""Configurations of one grid, each against the best, and which of them nobody can tell from the best."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.levels import Levels
from asr_lab.report.stats.rates import LEVEL, N_RESAMPLES, Array, Interval
from asr_lab.report.stats.resample import interval

_AT_MOST = 100_000_000  # resampled differences of a grid; a larger one gets fewer resamples, and never under 1,000


class Comparison(NamedTuple):
    """One configuration among others: its rate, each seed's rate, and its paired difference to the best one."""

    rate: Interval  # mean over seeds
    seeds: Array  # (S,)
    delta: Interval  # rate minus the best configuration's rate; (0, 0, 0) for the best itself; not corrected
    best: bool
    tied: bool  # p_adjusted is above 1 - level, or no interval can be made
    p: float = np.nan  # of no difference to the best, as if that one had been named before; 1 for the best
    p_adjusted: float = np.nan  # of being as good as the best, for all configurations together: `tied_with_best`


def compare(
    groups: Sequence[ArrayLike],
    words: ArrayLike,
    *,
    blocks: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> list[Comparison]:
    """Compare configurations scored on one test set.

    Args:
        groups: per configuration the edits (S, N) of its seeds; the numbers of seeds may differ.
        words: reference words (or characters) per utterance (N,).
        blocks: the block (speaker) of each utterance, to resample blocks; None resamples utterances.

    Returns:
        One `Comparison` per configuration, in order. With fewer than two units no interval can be made: its ends are
        nan and everything is tied. With one seed each, intervals and p values are of utterances only. Seeds of
        different configurations are taken as independent, which is never too narrow when the same seed helps or
        hurts both.
    """
    if not len(groups):
        return []
    levels = Levels(groups, words, blocks, n_resamples, seed)
    values = levels.values
    if np.isnan(values).any():
        nothing = Interval(np.nan, np.nan, np.nan)
        return [Comparison(nothing, s, nothing, best=False, tied=False) for s in levels.rates]
    best = int(values.argmin())
    adjusted = tied_with_best(levels)
    comparisons = []
    for i, value in enumerate(values):
        resampled = levels.difference(i, best)
        delta = interval(value - values[best], resampled, level)
        if levels.n < 2:
            p = np.nan
        elif i == best:
            delta, p = Interval(0.0, 0.0, 0.0), 1.0
        else:
            p = p_value(delta.value, resampled)
        comparisons.append(
            Comparison(
                rate=interval(value, levels.rate(i), level),
                seeds=levels.rates[i],
                delta=delta,
                best=i == best,
                tied=i != best and not adjusted[i] <= 1 - level,
                p=p,
                p_adjusted=float(adjusted[i]),
            )
        )
    return comparisons


def p_value(delta: float, resampled: Array) -> float:
    """Two-sided: how often resampled differences lie as far from `delta` as 0 does.

    The observed one counts as a draw, so no p is 0 (Davison & Hinkley, "Bootstrap methods", 1997, equation 4.11). Draws
    without a reference word are left out.
    """
    away = np.abs(resampled[~np.isnan(resampled)] - delta)
    if not len(away):
        return np.nan
    return float((1 + np.count_nonzero(away >= abs(delta) * (1 - 1e-9) - 1e-15)) / (1 + len(away)))


def tied_with_best(levels: Levels) -> Array:
    """(K,) p values; the group tied with the best at 5 % is where they are above 0.05.

    The model confidence set of Hansen, Lunde & Nason, Econometrica 2011, with their range statistic: as long as the
    largest of all standardised differences among those left is larger than resampled ones are, the worst one leaves.
    A p value is the largest of the tests up to leaving. Whatever is truly best stays, all of it together, with a
    probability of 95 %: that the best was picked by looking and how many configurations there were is accounted for.

    A standardised difference is t with degrees of freedom of its own, few where few seeds differ much. Each is taken to
    the normal scale by its own t distribution and held against resampled normal ones (as Hasler & Hothorn, Biometrical
    Journal 2008, do for contrasts of unequal variances), so that one unstable configuration does not hide the
    differences between all others. No p is below that of the one test against the best, which keeps its level with two
    seeds, where Satterthwaite's degrees of freedom do not (measured: 4 and 8 %).
    """
    k, best = len(levels.values), int(levels.values.argmin())
    p = np.full(k, np.nan)
    if levels.n < 2:
        return p
    errors, df = levels.standard_errors()
    errors = np.maximum(errors, 1e-12)
    t = _as_normal((levels.values[:, None] - levels.values) / errors, df)
    left, leaving, observed = list(range(k)), [], []
    while len(left) > 1:
        worst = t[np.ix_(left, left)].max(1)
        observed.append(worst.max())
        worst[left.index(best)] = -np.inf
        leaving.append(left.pop(int(worst.argmax())))
    n_resamples = min(levels.resampled.shape[1], max(1000, 2 * _AT_MOST // max(1, k * (k - 1))))
    # Backwards, so that each pair is looked at once: the largest difference among those left grows as one comes back.
    largest, back = np.zeros(n_resamples), [best]
    for i, most in zip(reversed(leaving), reversed(observed), strict=True):
        away = np.abs(levels.away(i, back, n_resamples)) / errors[i, back][:, None]
        largest = np.fmax(largest, np.fmax.reduce(away))
        back.append(i)
        alone = p_value(float(levels.values[i] - levels.values[best]), levels.difference(i, best))
        p[i] = max(alone, (1 + np.count_nonzero(largest >= most * (1 - 1e-9))) / (1 + n_resamples))
    p[leaving] = np.maximum.accumulate(p[leaving]) if leaving else p[leaving]
    p[best] = 1.0
    return p


def _as_normal(t: Array, df: Array) -> Array:
    """The normal deviate that is as far out as `t` is with `df` degrees of freedom."""
    from scipy.special import ndtri, stdtr

    return np.where(np.isfinite(df), np.sign(t) * -ndtri(np.maximum(stdtr(df, -np.abs(t)), 1e-300)), t)
