"""Resampled error rates, and the interval they make."""

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.draws import times_drawn
from asr_lab.report.stats.rates import LEVEL, N_RESAMPLES, Array, Interval

_CHUNK = 2_000_000  # numbers held at once while drawing: 16 MB, whatever the size of the test set


def bootstrap(errors: ArrayLike, words: ArrayLike, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Array:
    """Error rates of K cells on R resamples of their shared N units. (K, N), (N,) -> (K, R).

    Bisani & Ney 2004 with utterances as units, Liu & Peng 2020 with `sum_blocks` of speakers. Column r of every row is
    the same draw. nan where a draw holds no reference word.
    """
    errors, words = np.atleast_2d(np.asarray(errors, float)), np.asarray(words, float)
    n = words.size
    if n == 0:
        return np.full((len(errors), n_resamples), np.nan)
    rng = np.random.default_rng(seed)
    stacked = np.vstack([errors, words]).T  # (N, K + 1)
    if np.array_equal(stacked, np.rint(stacked)) and n * stacked.max() < 2**24:
        stacked = stacked.astype(np.float32)  # sums of counts are exact in it
    rates = np.empty((len(errors), n_resamples))
    step = max(1, _CHUNK // n)
    for start in range(0, n_resamples, step):
        r = min(step, n_resamples - start)
        sums = (times_drawn(r, n, rng) @ stacked).astype(float)  # (r, K + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates[:, start : start + r] = np.where(sums[:, -1] > 0, sums[:, :-1].T / sums[:, -1], np.nan)
    return rates


def interval(value: float, rates: Array, level: float = LEVEL) -> Interval:
    """Percentile interval of resampled `rates` (R,) around the measured `value`; draws without a word are left out."""
    rates = rates[~np.isnan(rates)]
    if not len(rates):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
