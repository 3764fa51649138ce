"""What this test set and this number of seeds can tell apart, and what it would take to separate the tied ones."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asr_lab.report.configurations import Configuration, ScoredSet
from asr_lab.report.stats import Needed, minimum_detectable_effect, needed

CLOSEST = 6  # configurations tied with the best, of which it is said what would separate them


class Power(NamedTuple):
    """Of the configurations that are compared with the best."""

    detectable: float  # the smallest true difference (a share) that would be found; nan where it is not known
    utterances: int
    seeds: int  # the smallest number of them
    separate: list[tuple[Configuration, Needed]]  # the first ones that are tied with the best


def power(rows: Sequence[Configuration], on: ScoredSet | None, score: str) -> Power | None:
    """None where fewer than two configurations are compared."""
    compared = [row for row in rows if row.comparable]
    best = next((row for row in compared if row.best), None)
    if on is None or best is None or len(compared) < 2:
        return None
    groups = [_edits(row, score) for row in compared]
    words = compared[0].done[0].scores.counts(score)[1]  # pyright: ignore  compared ones have counts
    seeds = min(len(row.done) for row in compared)
    tied = [row for row in compared if row.tied][:CLOSEST]
    try:
        least = minimum_detectable_effect(groups, words, blocks=on.blocks, n_seeds=seeds)
        separate = [(row, needed(_edits(row, score), _edits(best, score), words, blocks=on.blocks)) for row in tied]
    except ValueError:  # one utterance
        return Power(math.nan, len(words), seeds, [])
    return Power(least if math.isfinite(least) else math.nan, len(words), seeds, separate)


def _edits(row: Configuration, score: str) -> np.ndarray:
    """(S, N)"""
    return np.stack([c.scores.counts(score)[0] for c in row.done])  # pyright: ignore
