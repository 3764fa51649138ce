"""Uncertainty at two levels: which utterances were tested, and which seeds were trained.

A rate averaged over S seeds and n units (utterances, or speakers) is off by three things: units that happen to be hard,
seeds that happen to be good, and what a seed does on a unit. Of an analysis of variance of the S x n edits, crossed
(Searle, Casella & McCulloch, "Variance components", 1992, section 4.3), the mean squares estimate

    units: noise + S var(unit)      seeds: noise + n var(seed)      both: noise

Units are drawn again (the bootstrap: Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance
evaluation", ICASSP 2004; whole speakers: Liu & Peng, "Statistical testing on ASR performance via blockwise bootstrap",
Interspeech 2020), the same ones for all configurations, so differences are paired. Their spread contains noise / S, and
so does the spread of the seeds' rates; to count it once, the units' deviations are shrunk by sqrt(1 - noise / units). A
bootstrap of n units is too narrow, by sqrt((n - 1) / n) and the normal against Student's t (Hesterberg, "What teachers
should know about the bootstrap", The American Statistician 2015, section 3.1), which matters for ten speakers: each
draw's deviations are multiplied by sqrt(n / chi2(n - 1)). Seeds are too few to draw again: their mean is off by
t s / sqrt(S), Student's t, where the variances s^2 of all configurations are brought together (seeds.py).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.rates import Array, error_rate, units
from asr_lab.report.stats.resample import bootstrap
from asr_lab.report.stats.seeds import moderate

_CHUNK = 2_000_000  # numbers held at once while drawing
_FOLD = math.log(3)  # that a rate may be three times as high or low says already that nothing is known


class Levels:
    """K configurations on the same n units, resampled R times at both levels.

    Args:
        groups: per configuration the edits (S, N) of its seeds, or (N,) of one; the numbers of seeds may differ.
        words: reference words per utterance (N,).
        blocks: the speaker of each utterance, to draw speakers; None draws utterances.
        plain: deviations of units as the bootstrap has them, for methods with a correction of their own (BCa).
    """

    def __init__(
        self,
        groups: Sequence[ArrayLike],
        words: ArrayLike,
        blocks: Sequence[str] | None,
        n_resamples: int,
        seed: int,
        plain: bool = False,
    ) -> None:
        pairs = [units(g, words, blocks) for g in groups]
        edits, self.words = [e for e, _ in pairs], pairs[0][1]
        self.n = int(self.words.size)
        self.rates = [error_rate(e, self.words) for e in edits]  # (S,) each
        self.values = np.array([r.mean() for r in self.rates])  # (K,)
        self.seeds = moderate(self.rates)
        total, n_seeds = self.words.sum() or np.nan, np.array([[len(e)] for e in edits])
        summed = np.array([e.sum(0) for e in edits])  # (K, n), counts still
        self.resampled = bootstrap(summed, self.words, n_resamples, seed) / n_seeds  # (K, R)
        # What each unit adds to the rate: a ratio's linear part.
        parts = [(e - value * self.words) / total for e, value in zip(edits, self.values, strict=True)]
        self._noise = np.array([_noise(p) for p in parts])  # (K,), of the mean over seeds
        shared = (
            np.atleast_2d(np.cov(np.array([p.mean(0) for p in parts]))) if self.n > 1 else np.zeros((len(edits),) * 2)
        )
        self._own = np.diag(shared)  # (K,), variance over units
        self._spread = self._own[:, None] + self._own - 2 * shared  # (K, K), of differences
        self._plain, self._stretch = plain, np.ones(n_resamples)
        if not plain and self.n > 1:
            chi2 = np.random.default_rng([seed, 3]).chisquare(self.n - 1, n_resamples)
            self._stretch = np.sqrt(self.n / chi2)
        self._by_unit = self.resampled - self.values[:, None]  # (K, R), as the bootstrap has them
        rng = np.random.default_rng([seed, 1])
        self._normal = self._draw_normal(n_resamples, rng)  # (K, R)
        self._by_seed = self._studentised(self._normal, rng)  # (K, R)
        if self.n < 2:
            self._by_unit[:] = np.nan

    def rate(self, k: int) -> Array:
        """(R,) resampled rates of configuration k, whose deviations are relative: r exp(d / r).

        A rate is never below 0 and is skewed like a count; on the scale of its logarithm the truth lies above and below
        the interval equally often (measured: 1.9 and 2.6 % where plain percentiles have 1.2 and 5.0 %).
        """
        value = self.values[k]
        away = _signal(self._own[k], self._noise[k]) * self._stretch * self._by_unit[k] + self._by_seed[k]
        if self._plain or not value > 0:
            return value + away
        return value * np.exp(np.clip(away / value, -_FOLD, _FOLD))

    def difference(self, i: int, j: int) -> Array:
        """(R,) resampled differences, rate i - rate j."""
        signal = _signal(self._spread[i, j], self._noise[i] + self._noise[j])
        by_unit = signal * self._stretch * (self._by_unit[i] - self._by_unit[j])
        found = self.values[i] - self.values[j] + by_unit + self._by_seed[i] - self._by_seed[j]
        if self._plain:
            return found
        return np.clip(found, -math.exp(_FOLD) * self.values[j], math.exp(_FOLD) * self.values[i])

    def away(self, i: int, others: Sequence[int], n_resamples: int) -> Array:
        """(len(others), R): by how much differences of i and others are off, as if all variances were known."""
        signal = _signal(self._spread[i, others], self._noise[i] + self._noise[others])[:, None]
        unit, seed = self._by_unit[:, :n_resamples], self._normal[:, :n_resamples]
        return signal * math.sqrt(self.n / (self.n - 1)) * (unit[i] - unit[others]) + (seed[i] - seed[others])

    def swapped(self, edits: Array, n_resamples: int, seed: int) -> Array:
        """(R,) differences of configurations 0 and 1, whose `edits` (n,) change sign by chance."""
        rng = np.random.default_rng([seed, 2])
        total, by_unit = self.words.sum(), np.empty(n_resamples)
        step = max(1, _CHUNK // self.n)
        for start in range(0, n_resamples, step):
            r = min(step, n_resamples - start)
            signs = rng.integers(0, 2, (r, self.n), dtype=np.int8).astype(np.float32) * 2 - 1
            by_unit[start : start + r] = signs @ edits / total
        by_seed = self._studentised(self._draw_normal(n_resamples, rng), rng)
        signal = _signal(self._spread[0, 1], self._noise[0] + self._noise[1])
        return self.values[0] - self.values[1] + signal * by_unit + by_seed[0] - by_seed[1]

    def parts(self, i: int, j: int) -> tuple[float, Array]:
        """Of the difference's variance over units what is no noise, and each one's noise with one seed (2,)."""
        n_seeds = np.array([len(self.rates[i]), len(self.rates[j])])
        signal = max(0.0, float(self._spread[i, j] - self._noise[i] - self._noise[j]))
        return signal, self._noise[[i, j]] * n_seeds

    def standard_errors(self) -> tuple[Array, Array]:
        """(standard errors (K, K) of every difference, both levels; degrees of freedom behind them (K, K)).

        Satterthwaite, Biometrics Bulletin 1946; variances that are pooled are one estimate.
        """
        by_unit = self.n * np.maximum(0.0, self._spread - self._noise[:, None] - self._noise)
        variance, apart = self.seeds.variance, self.seeds.apart
        pooled, own = np.where(apart, 0.0, variance), np.where(apart, variance, 0.0)
        own = own**2 / np.array([max(1, len(r) - 1) for r in self.rates])
        squares = by_unit + variance[:, None] + variance
        parts = by_unit**2 / max(1, self.n - 1) + (pooled[:, None] + pooled) ** 2 / self.seeds.df + own[:, None] + own
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(squares), np.where(parts > 0, squares**2 / parts, np.inf)

    def _draw_normal(self, n_resamples: int, rng: np.random.Generator) -> Array:
        """(K, R): by how much the means over seeds are off, were the seeds' variances known."""
        return rng.standard_normal((len(self.values), n_resamples)) * np.sqrt(self.seeds.variance)[:, None]

    def _studentised(self, normal: Array, rng: np.random.Generator) -> Array:
        """(K, R): the same as t, with one denominator for variances that are pooled."""
        drawn, n_resamples = normal.copy(), normal.shape[1]
        if np.isfinite(self.seeds.df):
            drawn[~self.seeds.apart] /= np.sqrt(rng.chisquare(self.seeds.df, n_resamples) / self.seeds.df)
        for k in np.flatnonzero(self.seeds.apart):
            df = len(self.rates[k]) - 1
            drawn[k] /= np.sqrt(rng.chisquare(df, n_resamples) / df)
        return drawn


def _signal(spread: Array, noise: Array) -> Array:
    """What of deviations with this variance over units is not noise, as a factor."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, np.sqrt(np.maximum(0.0, 1 - noise / spread)), 1.0)


def _noise(parts: Array) -> float:
    """Variance over units that is noise (seed x unit), of the mean over seeds. (S, n)."""
    s, n = parts.shape
    if s < 2 or n < 2:
        return 0.0
    residual = parts - parts.mean(0) - parts.mean(1, keepdims=True) + parts.mean()
    return float((residual**2).sum() / ((s - 1) * (n - 1) * s))
