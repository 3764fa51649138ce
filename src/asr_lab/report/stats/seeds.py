"""How much the seeds of each configuration vary, by what all configurations of a grid tell together."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asr_lab.report.stats.rates import Array

# So many of a grid's variances are taken to stand out although all are alike: a few may well count alone, which is only
# careful, but leaving the largest out of what the others share makes theirs too small.
_APART, _LEFT_OUT = 0.5, 0.05


class Seeds(NamedTuple):
    """What K configurations' seeds say of their means."""

    variance: Array  # (K,) of the mean over seeds; 0 with one seed: nothing is known
    df: float  # degrees of freedom behind those that are brought together; inf where no configuration has two seeds
    apart: np.ndarray  # (K,) bool: stands out, so that it counts alone, with S - 1 degrees of freedom


def moderate(rates: Sequence[Array]) -> Seeds:
    """Variances between seeds, each drawn towards what the configurations have in common. `rates`: (S,) each.

    Two or three seeds tell a variance badly, a grid of configurations tells it well, unless they truly differ. Smyth,
    "Linear models and empirical Bayes methods", SAGMB 2004, section 6.2, estimates how alike they are (d0) from their
    spread, and weighs each with its own d = S - 1: (d0 s0^2 + d s^2) / (d0 + d). One configuration that is far less
    stable than the others tells nothing of them, nor they of it, so it counts alone (after Phipson et al., "Robust
    hyperparameter estimation protects against hypervariable genes", Annals of Applied Statistics 2016). The scale is
    the standard deviation relative to the rate, which is more alike between good and bad configurations.
    """
    n_seeds, values = np.array([len(r) for r in rates]), np.array([r.mean() for r in rates])
    variance, apart = np.zeros(len(rates)), np.zeros(len(rates), bool)
    many = np.array([k for k in range(len(rates)) if n_seeds[k] > 1 and values[k] > 0], int)
    if not len(many):
        return Seeds(variance, np.inf, apart)
    d = n_seeds[many] - 1.0
    relative = np.array([rates[k].var(ddof=1) for k in many]) / values[many] ** 2
    alone, left_out = (_standing_out(relative, d, limit) for limit in (_APART, _LEFT_OUT))
    moderated = relative.copy()
    moderated[~left_out], df = _together(relative[~left_out], d[~left_out])
    relative = np.where(alone, relative, moderated)
    variance[many], apart[many] = relative * values[many] ** 2 / n_seeds[many], alone
    return Seeds(variance, df, apart)


def _standing_out(s2: Array, d: Array, limit: float) -> np.ndarray:
    """(n,) bool: the largest variance, again and again, as long as F finds it too large for the others."""
    from scipy.special import fdtrc

    alone = np.zeros(len(s2), bool)
    while np.count_nonzero(~alone) > 2:
        most = int(np.where(alone, -1.0, s2).argmax())
        rest = ~alone
        rest[most] = False
        pooled = (d[rest] * s2[rest]).sum() / d[rest].sum()
        if pooled <= 0 or (rest.sum() + 1) * fdtrc(d[most], d[rest].sum(), s2[most] / pooled) > limit:
            break
        alone[most] = True
    return alone


def _together(s2: Array, d: Array) -> tuple[Array, float]:
    """(moderated variances, degrees of freedom of each); no more than all of them have."""
    from scipy.special import digamma, polygamma

    prior, d0, alive = float((d * s2).sum() / d.sum()), np.inf, s2 > 0
    if np.count_nonzero(alive) >= 3:
        e = np.log(s2[alive]) - digamma(d[alive] / 2) + np.log(d[alive] / 2)
        beyond = e.var(ddof=1) - polygamma(1, d[alive] / 2).mean()
        if beyond > 0:
            d0 = 2 * _inverse_trigamma(float(beyond))
            prior = float(np.exp(e.mean() + digamma(d0 / 2) - np.log(d0 / 2)))
    moderated = np.full(len(s2), prior) if np.isinf(d0) else (d0 * prior + d * s2) / (d0 + d)
    return moderated, float(min(d0 + d.min(), d.sum()))


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
