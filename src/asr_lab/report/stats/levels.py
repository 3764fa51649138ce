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
t s / sqrt(S), Student's t, where the variances s^2 of all configurations are brought together as in `moderate`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.rates import Array, error_rate, units
from asr_lab.report.stats.resample import bootstrap

_CHUNK = 2_000_000  # numbers held at once while drawing


class Seeds(NamedTuple):
    """What K configurations' seeds say of their means."""

    variance: Array  # (K,) of the mean over seeds; 0 with one seed: nothing is known
    df: float  # degrees of freedom behind it, inf where no configuration has two seeds


class Levels:
    """K configurations on the same n units, resampled R times at both levels.

    Args:
        groups: per configuration the edits (S, N) of its seeds, or (N,) of one; the numbers of seeds may differ.
        words: reference words per utterance (N,).
        blocks: the speaker of each utterance, to draw speakers; None draws utterances.
    """

    def __init__(
        self,
        groups: Sequence[ArrayLike],
        words: ArrayLike,
        blocks: Sequence[str] | None,
        n_resamples: int,
        seed: int,
        expand: bool = True,
    ) -> None:
        pairs = [units(g, words, blocks) for g in groups]
        edits, self.words = [e for e, _ in pairs], pairs[0][1]
        self.n = int(self.words.size)
        self.rates = [error_rate(e, self.words) for e in edits]  # (S,) each
        self.values = np.array([r.mean() for r in self.rates])  # (K,)
        self.seeds = moderate(self.rates)
        total, means = self.words.sum(), np.array([e.mean(0) for e in edits])  # (K, n)
        self.resampled = bootstrap(means, self.words, n_resamples, seed)  # (K, R)
        if self.n < 2:
            self.resampled[:] = np.nan
            return
        # What each unit adds to the rate: a ratio's linear part.
        parts = [(e - self.values[k] * self.words) / total for k, e in enumerate(edits)]
        self._spread = np.atleast_2d(np.cov(np.array([p.mean(0) for p in parts])))  # (K, K), over units
        self._noise = np.array([_noise(p) for p in parts])  # (K,), of the mean over seeds
        self._by_seed = self._draw_seeds(n_resamples, np.random.default_rng([seed, 1]))  # (K, R)
        self._by_unit = self.resampled - self.values[:, None]  # (K, R)
        if expand:
            self._by_unit *= np.sqrt(self.n / np.random.default_rng([seed, 3]).chisquare(self.n - 1, n_resamples))

    def rate(self, k: int) -> Array:
        """(R,) resampled rates of configuration k."""
        if self.n < 2:
            return self.resampled[k]
        return self.values[k] + self._shrink(k, k) * self._by_unit[k] + self._by_seed[k]

    def difference(self, i: int, j: int) -> Array:
        """(R,) resampled differences, rate i - rate j."""
        if self.n < 2 or i == j:
            return self.resampled[i] - self.resampled[j]
        by_unit = self._shrink(i, j) * (self._by_unit[i] - self._by_unit[j])
        return self.values[i] - self.values[j] + by_unit + self._by_seed[i] - self._by_seed[j]

    def swapped(self, edits: Array, n_resamples: int, seed: int) -> Array:
        """(R,) differences of configurations 0 and 1, whose `edits` (n,) change sign by chance."""
        rng = np.random.default_rng([seed, 2])
        total, by_unit = self.words.sum(), np.empty(n_resamples)
        step = max(1, _CHUNK // self.n)
        for start in range(0, n_resamples, step):
            r = min(step, n_resamples - start)
            signs = rng.integers(0, 2, (r, self.n), dtype=np.int8).astype(np.float32) * 2 - 1
            by_unit[start : start + r] = signs @ edits / total
        by_seed = self._draw_seeds(n_resamples, rng)
        return self.values[0] - self.values[1] + self._shrink(0, 1) * by_unit + by_seed[0] - by_seed[1]

    def parts(self, i: int, j: int) -> tuple[float, Array]:
        """Of the difference's variance over units what is no noise, and each one's noise with one seed (2,)."""
        spread = self._spread[i, i] + self._spread[j, j] - 2 * self._spread[i, j]
        n_seeds = np.array([len(self.rates[i]), len(self.rates[j])])
        return max(0.0, float(spread - self._noise[i] - self._noise[j])), self._noise[[i, j]] * n_seeds

    def standard_errors(self) -> Array:
        """(K, K) of every difference, both levels."""
        own = np.diag(self._spread)
        spread = own[:, None] + own - 2 * self._spread
        by_unit = self.n * np.maximum(0.0, spread - self._noise[:, None] - self._noise)
        np.fill_diagonal(by_unit, 0.0)
        squares = by_unit + self.seeds.variance[:, None] + self.seeds.variance
        return np.sqrt(squares - 2 * np.diag(self.seeds.variance))

    def _draw_seeds(self, n_resamples: int, rng: np.random.Generator) -> Array:
        """(K, R): by how much the means over seeds are off, t with one denominator for all of a draw."""
        drawn = rng.standard_normal((len(self.values), n_resamples)) * np.sqrt(self.seeds.variance)[:, None]
        if np.isfinite(self.seeds.df):
            drawn /= np.sqrt(rng.chisquare(self.seeds.df, n_resamples) / self.seeds.df)
        return drawn

    def _shrink(self, i: int, j: int) -> float:
        """What of the units' deviation of a difference (of a rate, where i = j) is not noise, as a factor."""
        spread, noise = self._spread[i, i], self._noise[i]
        if i != j:
            spread = spread + self._spread[j, j] - 2 * self._spread[i, j]
            noise = noise + self._noise[j]
        return float(np.sqrt(max(0.0, 1 - noise / spread))) if spread > 0 else 1.0


def _noise(parts: Array) -> float:
    """Variance over units that is noise (seed x unit), of the mean over seeds. (S, n)."""
    s, n = parts.shape
    if s < 2:
        return 0.0
    residual = parts - parts.mean(0) - parts.mean(1, keepdims=True) + parts.mean()
    return float((residual**2).sum() / ((s - 1) * (n - 1) * s))


def moderate(rates: Sequence[Array]) -> Seeds:
    """Variances between seeds, each drawn towards what all configurations have in common.

    Two or three seeds tell a variance badly, a grid of configurations tells it well, unless they truly differ. Smyth,
    "Linear models and empirical Bayes methods", SAGMB 2004, section 6.2, estimates how alike they are (d0) from their
    spread, and weighs each with its own d = S - 1: (d0 s0^2 + d s^2) / (d0 + d). The scale is the standard deviation
    relative to the rate, which is more alike between good and bad configurations.
    """
    from scipy.special import digamma, polygamma

    n_seeds = np.array([len(r) for r in rates])
    variance, d = np.zeros(len(rates)), n_seeds - 1.0
    values = np.array([r.mean() for r in rates])
    many = [k for k in range(len(rates)) if d[k] > 0 and values[k] > 0]
    if not many:
        return Seeds(variance, np.inf)
    d = d[many]
    relative = np.array([rates[k].var(ddof=1) for k in many]) / values[many] ** 2
    pooled, total = float((d * relative).sum() / d.sum()), float(d.sum())
    prior, d0 = pooled, np.inf
    alive = relative > 0
    if np.count_nonzero(alive) >= 3:
        e = np.log(relative[alive]) - digamma(d[alive] / 2) + np.log(d[alive] / 2)
        beyond = e.var(ddof=1) - polygamma(1, d[alive] / 2).mean()
        if beyond > 0:
            d0 = 2 * _inverse_trigamma(float(beyond))
            prior = float(np.exp(e.mean() + digamma(d0 / 2) - np.log(d0 / 2)))
    moderated = np.full(len(many), prior) if np.isinf(d0) else (d0 * prior + d * relative) / (d0 + d)
    variance[many] = moderated * values[many] ** 2 / n_seeds[many]
    return Seeds(variance, float(min(d0 + d.min(), total)))


def _inverse_trigamma(y: float) -> float:
    """x > 0 with trigamma(x) = y, by Newton's method (Smyth 2004, appendix)."""
    from scipy.special import polygamma

    x = 0.5 + 1 / y
    for _ in range(50):
        t = polygamma(1, x)
        step = t * (1 - t / y) / polygamma(2, x)
        x += step
        if -step / x < 1e-9:
            break
    return float(x)
