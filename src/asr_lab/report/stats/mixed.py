"""Mixed-effects models: factors as fixed effects, seeds (or speakers, or cells) as draws from a population.

An analysis of variance asks about the seeds that were run; a random effect asks how much seeds vary at all, which is
what someone with another seed will meet. Fitted by restricted maximum likelihood (REML: Patterson & Thompson,
Biometrika 1971), for any number of crossed or nested random factors and any grid, complete or not.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.design import codes, indicators
from asr_lab.report.stats.factorial import SEED
from asr_lab.report.stats.rates import LEVEL, Array, Interval

RESIDUAL = "residual"
_LARGEST = 1e8  # ratio of variances; beyond it the residual drowns in rounding


class Component(NamedTuple):
    """How much one random factor varies."""

    name: str  # the factor, or `residual`: runs that nothing tells apart
    sd: Interval  # standard deviation, in the unit of the values, with its profile-likelihood interval
    share: float  # of the sum of all variances


class Mixed(NamedTuple):
    """A fitted model."""

    means: dict[str, dict[str, Interval]]  # per fixed factor, its levels' means, others weighted equally
    components: list[Component]
    intercept: Interval  # mean over all levels
    log_likelihood: float  # restricted, with an orthonormal basis of the fixed effects
    n: int
    n_left_out: int  # values that are not finite: failed and censored runs


def mixed(
    values: ArrayLike,
    levels: Mapping[str, Sequence[str]],
    *,
    random: Sequence[str] = (SEED,),
    interactions: bool = False,
    level: float = LEVEL,
) -> Mixed:
    """Fit values (n,) of runs on their factors' levels.

    Args:
        random: the factors of `levels` that are random; the others are fixed.
        interactions: with the fixed factors' interactions of two.

    Raises:
        ValueError: a random factor that is not in `levels`, or not more runs than fixed effects.
    """
    y = np.asarray(values, float)
    unknown = [name for name in random if name not in levels]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such factor; there are {', '.join(levels)}")
    used = np.isfinite(y)
    coded = codes({name: np.asarray(v, object)[used].tolist() for name, v in levels.items()}, int(used.sum()))
    fixed = [name for name in coded if name not in random and len(coded[name][0]) > 1]
    terms = [(f,) for f in fixed] + (list(combinations(fixed, 2)) if interactions else [])
    x = np.hstack([np.ones((int(used.sum()), 1)), *(indicators(coded, t) for t in terms)])
    model = _Model(y[used], x, [(z := indicators(coded, (name,))) @ z.T for name in random])
    theta = model.fitted()
    beta, covariance, _ = model.effects(theta)
    shares = np.append(theta, 1.0) / (theta.sum() + 1)
    names = [*random, RESIDUAL]
    components = [Component(name, model.profile(k, theta, level), float(shares[k])) for k, name in enumerate(names)]
    z = _quantile(level)
    rows = {f: _means(f, coded, terms, beta, covariance, z) for f in fixed}
    whole = np.concatenate([[1.0], *(np.full(_size(coded, t), 1 / _size(coded, t)) for t in terms)])
    return Mixed(
        rows,
        components,
        _around(whole, beta, covariance, z),
        -model.deviance(theta) / 2,
        len(model.y),
        int((~used).sum()),
    )


class _Model:
    """y = X beta + sum of random effects + noise; the variance is s^2 (I + sum theta_k K_k), K_k = Z_k Z_k'."""

    def __init__(self, y: Array, x: Array, kernels: list[Array]) -> None:
        u, s, vt = np.linalg.svd(x, full_matrices=False)
        rank = int((s > 1e-10 * s[0]).sum())
        if len(y) <= rank:
            raise ValueError(f"{len(y)} runs with a value for {rank} fixed effects: more runs are needed")
        self.y, self.basis, self.kernels = y, u[:, :rank], kernels
        self.back = vt[:rank].T / s[:rank]  # from effects in the basis to those of the columns

    def _solved(self, theta: Array) -> tuple[Array, Array, float, float]:
        """(effects in the basis, their covariance / s^2, residual sum of squares, log determinants)."""
        n = len(self.y)
        v = np.eye(n) + sum((t * k for t, k in zip(theta, self.kernels, strict=True)), np.zeros((n, n)))
        root = np.linalg.cholesky(v)
        both = np.linalg.solve(root, np.column_stack([self.basis, self.y]))
        q, r = both[:, :-1], both[:, -1]
        precision = q.T @ q
        beta = np.asarray(np.linalg.solve(precision, q.T @ r), np.float64)
        rss = float(((r - q @ beta) ** 2).sum())
        logs = 2 * float(np.log(np.diag(root)).sum()) + float(np.linalg.slogdet(precision)[1])
        return beta, np.asarray(np.linalg.inv(precision), np.float64), rss, logs

    def deviance(self, theta: Array, sd: float | None = None) -> float:
        """-2 log REML likelihood at these ratios; s^2 at its best, or given."""
        _, _, rss, logs = self._solved(np.clip(theta, 0, _LARGEST))
        df = len(self.y) - self.basis.shape[1]
        s2 = max(rss / df, 1e-300) if sd is None else sd**2
        return logs + df * math.log(2 * math.pi * s2) + rss / s2

    def fitted(self) -> Array:
        """The ratios theta (n_random,) that make the data likeliest."""
        from scipy.optimize import minimize

        best: Array = np.zeros(len(self.kernels))
        least = self.deviance(best)
        for start in (0.1, 1.0, 10.0):
            at = np.full(len(self.kernels), math.log(start))
            found = minimize(lambda a: self.deviance(np.exp(np.clip(a, -25, 25))), at, method="Nelder-Mead", tol=1e-9)
            if found.fun < least - 1e-9:
                best, least = np.exp(np.clip(found.x, -25, 25)), float(found.fun)
        return np.asarray(np.where(best < 1e-9, 0.0, best), float)

    def effects(self, theta: Array) -> tuple[Array, Array, float]:
        """(effects of the columns, their covariance, s^2)."""
        beta, inverse, rss, _ = self._solved(theta)
        s2 = rss / (len(self.y) - self.basis.shape[1])
        return self.back @ beta, self.back @ inverse @ self.back.T * s2, s2

    def profile(self, k: int, theta: Array, level: float) -> Interval:
        """The k-th standard deviation (the last: of the noise) and where the likelihood, others at their best, has
        fallen by the level's quantile of chi2(1) / 2."""
        from scipy.optimize import brentq

        s = math.sqrt(self.effects(theta)[2])
        value = s * math.sqrt(theta[k]) if k < len(theta) else s
        limit = self.deviance(theta) + _quantile(level) ** 2

        def beyond(sd: float) -> float:
            return self._at_best(k, sd, theta) - limit

        low = 0.0 if value == 0 or beyond(value * 1e-4) <= 0 else brentq(beyond, value * 1e-4, value, xtol=1e-6 * s)
        high = max(value, s / 10)
        while beyond(high) < 0 and high < 1e4 * s:
            high *= 1.5
        return Interval(value, float(low), float(brentq(beyond, max(value, 1e-12), high, xtol=1e-6 * s)))  # type: ignore

    def _at_best(self, k: int, sd: float, theta: Array) -> float:
        """The least deviance with the k-th standard deviation held at `sd`."""
        from scipy.optimize import minimize

        n_random = len(theta)
        s = math.sqrt(self.effects(theta)[2])
        free = [i for i in range(n_random + 1) if i != k]
        sds = np.array([*(s * np.sqrt(theta)), s])

        def deviance(logs: Array) -> float:
            trial = sds.copy()
            trial[free], trial[k] = np.exp(np.clip(logs, -25, 25)), sd
            return self.deviance((trial[:-1] / trial[-1]) ** 2, trial[-1])

        start = np.log(np.maximum(sds[free], 1e-3 * s))
        return float(minimize(deviance, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-7}).fun)


def _size(coded, term: tuple[str, ...]) -> int:
    return math.prod(len(coded[name][0]) for name in term)


def _means(factor: str, coded, terms, beta: Array, covariance: Array, z: float) -> dict[str, Interval]:
    """Each level's mean, the other factors' levels weighted equally."""
    found = {}
    for i, name in enumerate(coded[factor][0]):
        parts: list[Array] = [np.ones(1)]
        for term in terms:
            weights: Array = np.ones(1)
            for f in term:
                m = len(coded[f][0])
                own: Array = np.eye(m)[i] if f == factor else np.full(m, 1 / m)
                weights = (weights[:, None] * own).ravel()
            parts.append(weights)
        found[name] = _around(np.concatenate(parts), beta, covariance, z)
    return found


def _around(contrast: Array, beta: Array, covariance: Array, z: float) -> Interval:
    value, half = float(contrast @ beta), float(z * np.sqrt(max(0.0, contrast @ covariance @ contrast)))
    return Interval(value, value - half, value + half)


def _quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))
