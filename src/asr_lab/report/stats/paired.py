"""Two configurations on one test set: the interval of their difference, and tests of "no difference".

Both are scored on the same utterances, so what counts is the difference on each utterance (or speaker): a hard
utterance is hard for both. `errors_*` are the edits (N,) of one cell, or (S, N) of the seeds of a configuration or of a
level of a factor; with one seed each, what is said holds for these trained models and not for their recipes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.compare import p_value
from asr_lab.report.stats.levels import Levels
from asr_lab.report.stats.rates import LEVEL, N_RESAMPLES, Array, Interval, TestResult, units
from asr_lab.report.stats.resample import interval


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
    """rate(a) - rate(b) with its paired interval.

    Args:
        method: "percentile" (as in the report), or "bca": bias-corrected and accelerated (Efron, "Better bootstrap
            confidence intervals", JASA 1987), for differences whose distribution is skewed.

    Raises:
        ValueError: another method, or shapes that do not belong together.
    """
    if method not in ("percentile", "bca"):
        raise ValueError(f"method '{method}': choose percentile or bca")
    levels = Levels([errors_a, errors_b], words, blocks, n_resamples, seed, plain=method == "bca")
    delta = float(levels.values[0] - levels.values[1])
    resampled = levels.difference(0, 1)
    if method == "percentile":
        return interval(delta, resampled, level)
    (a, n_words), (b, _) = units(errors_a, words, blocks), units(errors_b, words, blocks)
    return bca(delta, resampled, leave_one_out(a.mean(0) - b.mean(0), n_words), level)


def rate_interval(
    errors: ArrayLike,
    words: ArrayLike,
    *,
    blocks: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    method: str = "percentile",
) -> Interval:
    """rate(errors) with its interval, as `delta_interval`."""
    if method not in ("percentile", "bca"):
        raise ValueError(f"method '{method}': choose percentile or bca")
    levels = Levels([errors], words, blocks, n_resamples, seed, plain=method == "bca")
    value = float(levels.values[0])
    if method == "percentile":
        return interval(value, levels.rate(0), level)
    edits, n_words = units(errors, words, blocks)
    return bca(value, levels.rate(0), leave_one_out(edits.mean(0), n_words), level)


def leave_one_out(edits: Array, words: Array) -> Array:
    """(n,) rates without one unit each."""
    rest = words.sum() - words
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(rest > 0, (edits.sum() - edits) / rest, np.nan)


def bca(value: float, resampled: Array, jackknife: Array, level: float = LEVEL) -> Interval:
    """Bias-corrected and accelerated interval.

    Efron & Tibshirani, "An introduction to the bootstrap", 1993, equations 14.9 to 14.15. Args: `value` as measured,
    `resampled` (R,) ones, `jackknife` (n,) ones that leave a unit out each.
    """
    from scipy.special import ndtr, ndtri

    resampled, jackknife = resampled[~np.isnan(resampled)], jackknife[~np.isnan(jackknife)]
    if not len(resampled) or len(jackknife) < 2:
        return Interval(value, np.nan, np.nan)
    if np.ptp(resampled) <= 0:
        return Interval(value, float(resampled[0]), float(resampled[0]))
    # A draw that equals the value counts half.
    below = ((resampled < value).mean() + (resampled <= value).mean()) / 2
    centre = ndtri(below)
    away = jackknife.mean() - jackknife
    acceleration = (away**3).sum() / (6 * max((away**2).sum(), 1e-300) ** 1.5)
    z = centre + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(resampled, ndtr(centre + z / (1 - acceleration * z)))
    return Interval(value, float(low), float(high))


def paired_bootstrap(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    words: ArrayLike,
    *,
    blocks: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> TestResult:
    """Whether rate(a) = rate(b), over both levels; the statistic is rate(a) - rate(b).

    The paired bootstrap of Bisani & Ney 2004 (Liu & Peng 2020 with blocks), two-sided: how often a resampled
    difference lies as far from the measured one as 0 does.
    """
    levels = Levels([errors_a, errors_b], words, blocks, n_resamples, seed)
    delta = float(levels.values[0] - levels.values[1])
    return TestResult("paired bootstrap", delta, p_value(delta, levels.difference(0, 1)), levels.n)


def permutation(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    words: ArrayLike,
    *,
    blocks: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> TestResult:
    """Whether a and b may change places; the statistic is rate(a) - rate(b).

    On each unit the two are swapped or not by chance (approximate randomization, Noreen, "Computer-intensive methods
    for testing hypotheses", 1989). With several seeds the swaps are those of the mean over seeds, shrunk, and the
    seeds' part is added, as in `Levels`; with one seed each the test is exact.
    """
    levels = Levels([errors_a, errors_b], words, blocks, 1, seed)
    (a, _), (b, _) = units(errors_a, words, blocks), units(errors_b, words, blocks)
    delta, n = float(levels.values[0] - levels.values[1]), levels.n
    if n < 2 or np.isnan(delta):
        return TestResult("permutation", delta, np.nan, n)
    resampled = levels.swapped(a.mean(0) - b.mean(0), n_resamples, seed)
    return TestResult("permutation", delta, p_value(delta, resampled), n)
