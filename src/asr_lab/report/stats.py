"""Error rates and their intervals: pure, vectorised, seeded.

Shapes: N utterances (or blocks of them), K cells, S seeds of one configuration, R resamples. Rates are shares
(0.123 is 12.3 %).

The interval has up to two levels. Utterances (Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR
performance evaluation", ICASSP 2004) or, where errors of one speaker go together, whole speakers (Liu & Peng,
"Statistical testing on ASR performance via blockwise bootstrap", Interspeech 2020) are drawn again with replacement.
Seeds are drawn again as well: every seed is scored on the same test set, so both factors are drawn at once, the same
utterances for every cell (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007). Sharing the draw also
makes every difference between two configurations a paired one.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

N_RESAMPLES = 10_000
LEVEL = 0.95
_CHUNK = 2_000_000  # numbers held at once while drawing: 16 MB, whatever the size of the test set


class Interval(NamedTuple):
    """A value with its percentile interval, in the unit of the value; nan where it cannot be made."""

    value: float
    low: float
    high: float

    def includes(self, x: float) -> bool:
        return bool(self.low <= x <= self.high)


class Comparison(NamedTuple):
    """One configuration among others: its rate, each seed's rate, and its paired difference to the best one."""

    rate: Interval  # mean over seeds
    seeds: Array  # (S,)
    delta: Interval  # rate minus the best configuration's rate; (0, 0, 0) for the best itself
    best: bool
    tied: bool  # the difference cannot be told from 0 (or no interval can be made)


def error_rate(errors: ArrayLike, words: ArrayLike) -> Array:
    """Corpus error rate: all edits over all reference words, never a mean of utterance rates. (..., N) -> (...).

    WER = (S + D + I) / N of the NIST scoring tool sclite; nan where the reference holds no word.
    """
    total = np.asarray(words, float).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, np.asarray(errors, float).sum(-1) / total, np.nan)


def sum_blocks(counts: ArrayLike, blocks: Sequence[str]) -> Array:
    """Counts summed over each block (a speaker's utterances), blocks in sorted order. (..., N) -> (..., n_blocks)."""
    names, index = np.unique(np.asarray(blocks, str), return_inverse=True)
    counts = np.moveaxis(np.asarray(counts, float), -1, 0)
    sums = np.zeros((len(names), *counts.shape[1:]))
    np.add.at(sums, index, counts)
    return np.moveaxis(sums, 0, -1)


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
    rates = np.empty((len(errors), n_resamples))
    step = max(1, _CHUNK // n)
    for start in range(0, n_resamples, step):
        r = min(step, n_resamples - start)
        drawn = rng.integers(n, size=(r, n)) + n * np.arange(r)[:, None]
        times = np.bincount(drawn.ravel(), minlength=r * n).reshape(r, n)  # how often each unit was drawn
        sums = times @ stacked  # (r, K + 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates[:, start : start + r] = np.where(sums[:, -1] > 0, sums[:, :-1].T / sums[:, -1], np.nan)
    return rates


def mean_over_seeds(rates: Array, rng: np.random.Generator) -> Array:
    """The second level: resampled means over S seeds of rates that share their utterances. (S, R) -> (R,).

    Draws S - 1 seeds, not S: the variance of the mean is then unbiased (McCarthy & Snowden, "The bootstrap and finite
    population sampling", 1985), where S draws would halve it at two seeds. One seed passes through unchanged.
    """
    s, r = rates.shape
    if s < 2:
        return rates.mean(0)
    return np.take_along_axis(rates, rng.integers(s, size=(s - 1, r)), axis=0).mean(0)


def interval(value: float, rates: Array, level: float = LEVEL) -> Interval:
    """Percentile interval of resampled `rates` (R,) around the measured `value`; draws without a word are left out."""
    rates = rates[~np.isnan(rates)]
    if not len(rates):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


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
        nan and everything is tied. Seeds of different configurations are drawn independently, which is never too
        narrow when the same seed helps or hurts both.
    """
    edits = [np.atleast_2d(np.asarray(g, float)) for g in groups]
    words = np.asarray(words, float)
    if blocks is not None:
        edits, words = [sum_blocks(e, blocks) for e in edits], sum_blocks(words, blocks)
    if not edits:
        return []
    seeds = [error_rate(e, words) for e in edits]
    values = np.array([s.mean() for s in seeds])
    if np.isnan(values).all():
        nothing = Interval(np.nan, np.nan, np.nan)
        return [Comparison(nothing, s, nothing, best=False, tied=False) for s in seeds]
    best = int(np.nanargmin(values))

    flat = bootstrap(np.vstack(edits), words, n_resamples, seed)  # (K, R)
    if words.size < 2:
        flat[:] = np.nan
    ends = np.cumsum([0, *map(len, edits)])
    resampled = [
        mean_over_seeds(flat[a:b], np.random.default_rng([seed, i])) for i, (a, b) in enumerate(pairwise(ends))
    ]
    comparisons = []
    for i, value in enumerate(values):
        delta = interval(value - values[best], resampled[i] - resampled[best], level)
        if i == best:
            delta = Interval(0.0, 0.0, 0.0)
        tied = i != best and (delta.includes(0) or bool(np.isnan(delta.low)))
        comparisons.append(Comparison(interval(value, resampled[i], level), seeds[i], delta, i == best, tied))
    return comparisons
