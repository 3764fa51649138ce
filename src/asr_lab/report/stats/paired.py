"""Two configurations on one test set: the interval of their difference, and tests of "no difference".

Both are scored on the same utterances, so what counts is the difference on each utterance (or speaker): a hard
utterance is hard for both.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.rates import LEVEL, N_RESAMPLES, Array, Interval, TestResult, error_rate, units
from asr_lab.report.stats.resample import bootstrap, interval, mean_over_seeds


def delta_interval(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    words: ArrayLike,
    *,
    blocks: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    method: str = "percentile",
) -> Interval:
    """rate(a) - rate(b) with its paired interval. errors_*: (N,) of a cell or (S, N) of a configuration's seeds."""
    delta, resampled, _ = _differences(errors_a, errors_b, words, blocks, n_resamples, seed)
    return interval(delta, resampled, level)


def paired_bootstrap(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    words: ArrayLike,
    *,
    blocks: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> TestResult:
    """Bisani & Ney's paired bootstrap as a test; the statistic is rate(a) - rate(b)."""
    delta, resampled, n = _differences(errors_a, errors_b, words, blocks, n_resamples, seed)
    away = np.abs(resampled - delta) >= abs(delta) - 1e-12
    p = (1 + np.count_nonzero(away)) / (1 + n_resamples) if np.isfinite(resampled).any() else np.nan
    return TestResult("paired bootstrap", delta, float(p), n)


def permutation(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    words: ArrayLike,
    *,
    blocks: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> TestResult:
    """The paired permutation test: per unit, a and b are swapped or not; the statistic is rate(a) - rate(b)."""
    (a, n_words), (b, _) = units(errors_a, words, blocks), units(errors_b, words, blocks)
    d = a.mean(0) - b.mean(0)
    total, n = n_words.sum(), int(n_words.size)
    if not total:
        return TestResult("permutation", np.nan, np.nan, n)
    signs = np.random.default_rng(seed).integers(0, 2, (n_resamples, n), dtype=np.int8) * 2 - 1
    away = np.abs(signs @ d) >= abs(d.sum()) - 1e-9
    return TestResult("permutation", float(d.sum() / total), (1 + np.count_nonzero(away)) / (1 + n_resamples), n)


def _differences(errors_a, errors_b, words, blocks, n_resamples, seed) -> tuple[float, Array, int]:
    """(difference of the rates, resampled ones (R,), number of units)."""
    (a, n_words), (b, _) = units(errors_a, words, blocks), units(errors_b, words, blocks)
    rates = bootstrap(np.vstack([a, b]), n_words, n_resamples, seed)
    if n_words.size < 2:
        rates[:] = np.nan
    means = [
        mean_over_seeds(r, np.random.default_rng([seed, i])) for i, r in enumerate((rates[: len(a)], rates[len(a) :]))
    ]
    delta = float(error_rate(a, n_words).mean() - error_rate(b, n_words).mean())
    return delta, means[0] - means[1], int(n_words.size)
