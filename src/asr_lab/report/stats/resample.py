"""Resampled error rates: utterances or speakers drawn again with replacement, and seeds."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asr_lab.report.stats.rates import LEVEL, N_RESAMPLES, Array, Interval

_CHUNK = 400_000  # numbers held at once while drawing: what a processor's cache holds is drawn twice as fast
_FEW = 4  # columns that are read and added one by one sooner than draws are counted


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
    if (
        n * np.abs(stacked).max() < 2**24 and not (stacked % 1).any()
    ):  # whole numbers that float32 holds and adds exactly
        stacked = stacked.astype(np.float32)
    rates = np.empty((len(errors), n_resamples))
    step = max(1, _CHUNK // n)
    for start in range(0, n_resamples, step):
        r = min(step, n_resamples - start)
        sums = _sums(stacked, rng.integers(n, size=(r, n))).astype(float)  # (r, K + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates[:, start : start + r] = np.where(sums[:, -1] > 0, sums[:, :-1].T / sums[:, -1], np.nan)
    return rates


def _sums(stacked: NDArray[Any], drawn: NDArray[np.int64]) -> NDArray[Any]:
    """Sums over each draw. (N, K) and units drawn (R, N) -> (R, K)."""
    (n, k), r = stacked.shape, len(drawn)
    if k <= _FEW:
        return np.stack([column[drawn].sum(1) for column in np.ascontiguousarray(stacked.T)], axis=1)
    flat = (drawn + n * np.arange(r)[:, None]).ravel()
    times = np.bincount(flat, minlength=r * n).reshape(r, n)  # how often each unit was drawn
    return times.astype(stacked.dtype) @ stacked


def interval(value: float, rates: Array, level: float = LEVEL) -> Interval:
    """Percentile interval of resampled `rates` (R,) around the measured `value`; draws without a word are left out."""
    rates = rates[~np.isnan(rates)]
    if not len(rates):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
