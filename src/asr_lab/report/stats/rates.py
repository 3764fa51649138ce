"""What every statistic here works with: error rates, their intervals, results of tests, counts summed by speaker."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

N_RESAMPLES = 10_000
LEVEL = 0.95


class Interval(NamedTuple):
    """A value with its interval, in the unit of the value; ends are nan where none can be made."""

    value: float
    low: float
    high: float

    def includes(self, x: float) -> bool:
        return bool(self.low <= x <= self.high)


class TestResult(NamedTuple):
    """One test of "no difference", two-sided."""

    test: str  # its name, for people
    statistic: float
    p: float  # nan where the test cannot be made
    n: int  # units that were compared: utterances, speakers, segments, ...


TestResult.__test__ = False  # type: ignore[attr-defined]  # to pytest it is no test


def error_rate(errors: ArrayLike, words: ArrayLike) -> Array:
    """Corpus error rate: all edits over all reference words, never a mean of utterance rates. (..., N) -> (...).

    WER = (S + D + I) / N of the NIST scoring tool sclite; nan where the reference holds no word.
    """
    total = np.asarray(words, float).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, np.asarray(errors, float).sum(-1) / total, np.nan)


def accuracy(errors: ArrayLike, words: ArrayLike) -> Array:
    """sclite's word accuracy, (N - S - D - I) / N: below 0 where insertions abound. (..., N) -> (...)."""
    return 1.0 - error_rate(errors, words)


def sum_blocks(counts: ArrayLike, blocks: Sequence[str]) -> Array:
    """Counts summed over each block (a speaker's utterances), blocks in sorted order. (..., N) -> (..., n_blocks)."""
    names, index = np.unique(np.asarray(blocks, str), return_inverse=True)
    counts = np.moveaxis(np.asarray(counts, float), -1, 0)
    sums = np.zeros((len(names), *counts.shape[1:]))
    np.add.at(sums, index, counts)
    return np.moveaxis(sums, 0, -1)


def units(errors: ArrayLike, words: ArrayLike, blocks: Sequence[str] | None) -> tuple[Array, Array]:
    """((S, n), (n,)): edits of a configuration's seeds and reference words, by utterance or summed over blocks.

    Raises:
        ValueError: the shapes do not belong together, or a count is negative or not finite.
    """
    edits, n_words = np.atleast_2d(np.asarray(errors, float)), np.asarray(words, float)
    if edits.ndim != 2 or n_words.ndim != 1 or edits.shape[1] != n_words.size:
        raise ValueError(f"errors {edits.shape} and words {n_words.shape}: (S, N) or (N,), and (N,), are needed")
    if blocks is not None and len(blocks) != n_words.size:
        raise ValueError(f"{len(blocks)} blocks for {n_words.size} utterances")
    if not (np.isfinite(edits).all() and np.isfinite(n_words).all() and (edits >= 0).all() and (n_words >= 0).all()):
        raise ValueError("errors and words are counts: finite and not negative")
    return (edits, n_words) if blocks is None else (sum_blocks(edits, blocks), sum_blocks(n_words, blocks))
