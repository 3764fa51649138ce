"""The significance tests of NIST's scoring toolkit (sc_stats of SCTK), two-sided.

They compare two hypotheses of the same utterances, so two cells: seeds are not their subject. MAPSSWE takes the
alignments, McNemar's test the utterances that are right, the other two the differences of the speakers' error rates.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from asr_lab.report.stats.rates import Array, TestResult

GOOD = 2  # correct words that end a segment; sc_stats calls it the minimum number of correct boundary words


class Column(Protocol):
    """A column of an alignment, such as `asr_lab.report.words.Pair`: its mark is "" (correct), "S", "D" or "I"."""

    @property
    def mark(self) -> str: ...


class Segment(NamedTuple):
    """Edits of both systems in one stretch of an utterance."""

    errors_a: int
    errors_b: int


def mapsswe(pairs_a: Iterable[Sequence[Column]], pairs_b: Iterable[Sequence[Column]], good: int = GOOD) -> TestResult:
    """Matched pairs sentence-segment word error test; the statistic is z, positive where a has more errors.

    Gillick & Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP 1989; Pallett,
    Fisher & Fiscus, "Tools for the analysis of benchmark speech recognition tests", ICASSP 1990. With d the difference
    of errors on each of n segments (`segments`), z = mean(d) / (sd(d) / sqrt(n)) is taken as normal, which a few dozen
    segments are enough for. Where all d are the same, sd is 0, and their signs are tested instead.

    Args:
        pairs_a: of each utterance the alignment of a's hypothesis with the reference; pairs_b likewise, in that order.

    Raises:
        ValueError: numbers of utterances or of reference words differ.
    """
    found = [s for a, b in zip(pairs_a, pairs_b, strict=True) for s in segments(a, b, good)]
    d = np.array([s.errors_a - s.errors_b for s in found], float)
    n, name = len(d), "MAPSSWE"
    if not d.any():
        return TestResult(name, 0.0, 1.0, n)
    if n < 2 or np.ptp(d) == 0:
        return TestResult(name, float(np.copysign(np.inf, d[0])), sign_test(d).p, n)
    z = float(d.mean() / (d.std(ddof=1) / np.sqrt(n)))
    return TestResult(name, z, _normal(z), n)


def segments(pairs_a: Sequence[Column], pairs_b: Sequence[Column], good: int = GOOD) -> list[Segment]:
    """The stretches of one utterance with an error of either system, kept apart by `good` words both have right.

    Ends of the utterance end a segment as well. An insertion between two right words parts them.
    """
    a, b = _by_word(pairs_a), _by_word(pairs_b)
    if len(a) != len(b):
        raise ValueError(f"alignments with {(len(a) - 1) // 2} and {(len(b) - 1) // 2} words of one reference")
    found, errors, right, is_open = [], [0, 0], 0, False
    for place, both in enumerate(zip(a, b, strict=True)):  # gap, word, gap, word, ..., gap
        if any(both):
            errors, right, is_open = [errors[0] + both[0], errors[1] + both[1]], 0, True
        elif place % 2:
            right += 1
            if is_open and right == good:
                found.append(Segment(*errors))
                errors, is_open = [0, 0], False
    return [*found, Segment(*errors)] if is_open else found


def _by_word(pairs: Sequence[Column]) -> list[int]:
    """Errors by place: insertions before word 0, word 0 (0 or 1), insertions before word 1, ..., and at the end."""
    places = [0]
    for pair in pairs:
        if pair.mark == "I":
            places[-1] += 1
        else:
            places += [int(pair.mark != ""), 0]
    return places


def sign_test(d: ArrayLike) -> TestResult:
    """On differences (n,), usually of the speakers' error rates; the statistic is the number of positive ones.

    As sc_stats does: exact binomial; zeros are shared out, half to each sign, an odd one to the rarer sign, which makes
    a finding less likely.
    """
    d = _differences(d)
    plus, minus, n = int((d > 0).sum()), int((d < 0).sum()), len(d)
    rarer = min(n // 2, min(plus, minus) + (n - plus - minus + 1) // 2)
    return TestResult("sign", float(plus), _binomial(rarer, n), n)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> TestResult:
    """On utterances (n,) that each system has entirely right or not; the statistic is the number only a has right.

    McNemar, Psychometrika 1947; Gillick & Cox 1989, section 2; exact, as in sc_stats. `n` is the number of utterances
    that one has right and the other wrong: the others tell nothing.
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"correct_a {a.shape} and correct_b {b.shape}: one entry for each utterance is needed")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = _binomial(min(only_a, only_b), only_a + only_b)
    return TestResult("McNemar", float(only_a), p, only_a + only_b)


def wilcoxon(d: ArrayLike) -> TestResult:
    """Signed ranks of differences (n,), usually of the speakers' error rates; the statistic is z.

    Wilcoxon, Biometrics Bulletin 1945, by the normal approximation, which sc_stats asks eight speakers for. Zeros are
    ranked, and their ranks shared out to both signs (sc_stats gives them to one and the other in turn, so the order of
    speakers matters there). The variance is that for tied ranks, which sc_stats does without.
    """
    from scipy.stats import rankdata

    d = _differences(d)
    n = len(d)
    if not d.any():
        return TestResult("Wilcoxon", 0.0, 1.0 if n else np.nan, n)
    ranks = rankdata(np.abs(d))
    plus = ranks[d > 0].sum() + ranks[d == 0].sum() / 2
    _, times = np.unique(ranks, return_counts=True)
    variance = n * (n + 1) * (2 * n + 1) / 24 - (times.astype(float) ** 3 - times).sum() / 48
    z = float((plus - n * (n + 1) / 4) / np.sqrt(variance))
    return TestResult("Wilcoxon", z, _normal(z), n)


def _differences(d: ArrayLike) -> Array:
    d = np.asarray(d, float)
    if d.ndim != 1 or not np.isfinite(d).all():
        raise ValueError("differences are a list of finite numbers; leave out speakers without a reference word")
    return np.where(np.abs(d) < 1e-12, 0.0, d)


def _normal(z: float) -> float:
    from scipy.special import ndtr

    return float(2 * ndtr(-abs(z)))


def _binomial(k: int, n: int) -> float:
    """P of at most k, or at least n - k, heads among n tosses of a coin."""
    from scipy.special import bdtr

    return float(2 * bdtr(k, n, 0.5)) if 2 * k < n - 1 else 1.0
