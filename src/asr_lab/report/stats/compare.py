"""Configurations of one grid, each against the best."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.rates import LEVEL, N_RESAMPLES, Array, Interval, error_rate, sum_blocks
from asr_lab.report.stats.resample import bootstrap, interval, mean_over_seeds


class Comparison(NamedTuple):
    """One configuration among others: its rate, each seed's rate, and its paired difference to the best one."""

    rate: Interval  # mean over seeds
    seeds: Array  # (S,)
    delta: Interval  # rate minus the best configuration's rate; (0, 0, 0) for the best itself
    best: bool
    tied: bool  # the difference cannot be told from 0 (or no interval can be made)


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
