"""Many tests at once: adjusted p values, to be compared with the level as if each were the only test."""

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.rates import Array


def holm(p: ArrayLike) -> Array:
    """Adjusted for the chance of even one false finding among all (family-wise error). (n,) -> (n,).

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979. Valid
    however the tests depend on each other. A nan is no test: it stays nan and does not count.
    """
    return _adjust(p, lambda ranked, m: np.maximum.accumulate(ranked * (m - np.arange(m))))


def benjamini_hochberg(p: ArrayLike) -> Array:
    """Adjusted for the share of false ones among the findings (false discovery rate). (n,) -> (n,).

    Benjamini & Hochberg, JRSS B 1995, equation 1; for tests that are independent or depend positively on each other.
    """
    return _adjust(p, lambda ranked, m: np.minimum.accumulate((ranked * m / np.arange(1, m + 1))[::-1])[::-1])


def _adjust(p: ArrayLike, rule) -> Array:
    p = np.asarray(p, float)
    if p.ndim != 1 or np.any((p < 0) | (p > 1)):
        raise ValueError("p values are a list of numbers from 0 to 1")
    adjusted, tests = np.full(p.shape, np.nan), np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    adjusted[order] = np.minimum(rule(p[order], len(order)), 1.0)
    return adjusted
