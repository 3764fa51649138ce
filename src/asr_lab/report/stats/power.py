"""What a test set and a number of seeds can separate, and what it would take to separate two configurations."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.levels import Levels
from asr_lab.report.stats.rates import LEVEL

POWER = 0.8
_MOST = 10_000_000


class Design(NamedTuple):
    """Where the variance of a difference between two configurations comes from, for one unit and one seed each."""

    by_unit: float  # of what the two do differently on a unit (and of all noise, where nobody has two seeds)
    by_seed: float  # of what seeds do everywhere, both configurations together; 0 where nobody has two seeds
    noise: float  # of what a seed does on one unit, both together
    n_units: int
    n_seeds: int  # the smaller number of the two
    utterances: int
    seeds_known: bool

    def standard_error(self, n_units: float, n_seeds: float) -> float:
        seeds = (self.by_seed + self.noise / n_units) / n_seeds if self.seeds_known else 0.0
        return math.sqrt(self.by_unit / n_units + seeds)

    def detectable(self, n_units: float, n_seeds: float, power: float = POWER, level: float = LEVEL) -> float:
        """The true difference that a two-sided test finds with probability `power`: (t_level + t_power) * error.

        Cohen, "Statistical power analysis", 1988, chapter 2, with the degrees of freedom of Satterthwaite, Biometrics
        Bulletin 1946. inf with one seed where seeds matter: nothing then tells seeds from configurations.
        """
        from scipy.special import stdtrit

        error = self.standard_error(n_units, n_seeds)
        if error == 0:
            return 0.0
        seeds = error**2 - self.by_unit / n_units
        if n_units < 2 or (seeds > 1e-15 * error**2 and n_seeds < 2):
            return math.inf
        parts = (self.by_unit / n_units) ** 2 / (n_units - 1)
        if seeds > 0 and n_seeds > 1:
            parts += seeds**2 / (2 * (n_seeds - 1))
        df = error**4 / parts if parts > 0 else math.inf
        return float((stdtrit(df, (1 + level) / 2) + stdtrit(df, power)) * error)


class Needed(NamedTuple):
    """How much evidence would separate two configurations whose true difference is the measured one."""

    delta: float  # rate(a) - rate(b) as measured
    detectable: float  # by what there is now
    n_seeds: float  # of each, on the present test set; inf: no number is enough
    n_utterances: float  # with the present number of seeds; inf: no number is enough
    seeds_known: bool  # whether either configuration has two seeds; without, seeds are taken to be all the same


def design(a: ArrayLike, b: ArrayLike, words: ArrayLike, blocks: Sequence[str] | None = None) -> Design:
    """The variances of two configurations' edits (S, N) each. With blocks, the units are speakers."""
    levels = Levels([a, b], words, blocks, 1, 0)
    if levels.n < 2 or np.isnan(levels.values).any():
        raise ValueError("two utterances (or speakers) with reference words are needed")
    n, counts = levels.n, [len(r) for r in levels.rates]
    by_unit, noise = levels.parts(0, 1)
    # Between seeds of one configuration the rate varies by seed and by noise; the mean squares hold both.
    by_seed = sum(
        max(0.0, r.var(ddof=1) - n * s) if len(r) > 1 else 0.0 for r, s in zip(levels.rates, noise, strict=True)
    )
    return Design(
        by_unit=by_unit * n * n,
        by_seed=float(by_seed),
        noise=float(sum(noise)) * n * n,
        n_units=n,
        n_seeds=min(counts),
        utterances=int(np.size(words)),
        seeds_known=max(counts) > 1,
    )


def minimum_detectable_effect(
    groups: Sequence[ArrayLike],
    words: ArrayLike,
    *,
    blocks: Sequence[str] | None = None,
    n_seeds: int | None = None,
    n_utterances: int | None = None,
    power: float = POWER,
    level: float = LEVEL,
) -> float:
    """The smallest true difference of two rates that this test set and number of seeds would find.

    Args:
        groups: edits (S, N) of at least two configurations, from whose pairs the variances are taken: their median.
        n_seeds, n_utterances: of another experiment, with the same variances; None: those of the first two groups.
    """
    if len(groups) < 2:
        raise ValueError("a difference takes two configurations")
    found = []
    for a, b in list(combinations(groups, 2))[:200]:
        d = design(a, b, words, blocks)
        units = d.n_units * (n_utterances / d.utterances if n_utterances else 1)
        found.append(d.detectable(units, n_seeds or d.n_seeds, power, level))
    return float(np.median(found))


def needed(
    errors_a: ArrayLike,
    errors_b: ArrayLike,
    words: ArrayLike,
    *,
    blocks: Sequence[str] | None = None,
    power: float = POWER,
    level: float = LEVEL,
) -> Needed:
    """How many seeds, or utterances, a test at `level` would need to find the measured difference."""
    d = design(errors_a, errors_b, words, blocks)
    delta = float(np.diff([np.mean(np.sum(np.atleast_2d(e), -1)) for e in (errors_b, errors_a)])[0] / np.sum(words))
    per_unit = d.utterances / d.n_units
    seeds = _smallest(lambda s: d.detectable(d.n_units, s, power, level) <= abs(delta), d.seeds_known + 1, delta)
    units = _smallest(lambda n: d.detectable(n, d.n_seeds, power, level) <= abs(delta), 2, delta)
    if not d.seeds_known and seeds > 1:
        seeds = math.inf
    now = d.detectable(d.n_units, d.n_seeds, power, level)
    return Needed(delta, now, seeds, math.ceil(units * per_unit) if units < math.inf else units, d.seeds_known)


def _smallest(enough, start: int, delta: float) -> float:
    """The smallest n >= start with enough(n), which stays true once it is; inf if not even _MOST is."""
    if delta == 0 or not enough(_MOST):
        return math.inf
    low, high = start - 1, start
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
