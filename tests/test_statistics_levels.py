"""Intervals and comparisons at two levels: against scipy and kaldialign, by simulation, and what must always hold."""

import kaldialign
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.report import stats
from asr_lab.report.stats.resample import bootstrap
from asr_lab.report.stats.seeds import moderate
from asr_lab.report.stats.simulate import Simulation

ERRORS = st.integers(0, 2**32 - 1).map(
    lambda seed: (rng := np.random.default_rng(seed)) and rng.poisson(rng.uniform(0.1, 3), (2, 3, 12)).astype(float)
)
WORDS = np.array([5, 3, 8, 2, 9, 4, 4, 7, 0, 6, 3, 5.0])
FEW = {"n_resamples": 200}


# --- agreement ----------------------------------------------------------------------------------------------------


def test_bca_is_scipys():
    rng = np.random.default_rng(0)
    words, errors = rng.integers(2, 12, 60).astype(float), rng.poisson(0.6, 60).astype(float)
    theirs = scipy.stats.bootstrap(
        (errors, words),
        lambda e, w, axis: e.sum(axis) / w.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=40_000,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = stats.rate_interval(errors, words, n_resamples=40_000, method="bca")
    assert ours[1:] == pytest.approx([theirs.low, theirs.high], rel=0.01)
    plain = stats.interval(ours.value, bootstrap(errors, words, 40_000)[0])
    assert ours.high - plain.high > 0.002  # the distribution is skewed, and that is what BCa is for


def test_plain_bootstrap_is_kaldialigns():
    rng = np.random.default_rng(2)
    refs = [[str(w) for w in rng.integers(9, size=n)] for n in rng.integers(2, 12, 80)]
    hyps = [[w if rng.random() > 0.2 else "x" for w in ref] for ref in refs]
    theirs = kaldialign.bootstrap_wer_ci(refs, hyps, replications=4000)
    errors = [kaldialign.edit_distance(r, h)["total"] for r, h in zip(refs, hyps, strict=True)]
    words = [len(r) for r in refs]
    resampled = bootstrap(errors, words, 4000)[0]
    assert resampled.mean() == pytest.approx(theirs["wer"], rel=0.02)
    assert 1.96 * resampled.std() == pytest.approx(theirs["ci95"], rel=0.06)  # theirs is the normal one


def test_permutation_is_scipys():
    rng = np.random.default_rng(3)
    words, a = np.full(9, 10.0), rng.poisson(2.5, 9).astype(float)
    b = rng.poisson(1.5, 9).astype(float)
    exact = scipy.stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).sum(axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert stats.permutation(a, b, words, n_resamples=40_000).p == pytest.approx(exact.pvalue, abs=0.01)


def test_paired_bootstrap_of_many_utterances_is_the_t_test():
    rng = np.random.default_rng(4)
    a, words = rng.poisson(2.0, 400).astype(float), np.full(400, 10.0)
    b = np.maximum(0, a + rng.integers(-1, 2, 400) + (rng.random(400) < 0.06))
    expected = scipy.stats.ttest_rel(a, b).pvalue
    assert stats.paired_bootstrap(a, b, words, n_resamples=40_000).p == pytest.approx(expected, abs=0.01)
    assert stats.permutation(a, b, words, n_resamples=40_000).p == pytest.approx(expected, abs=0.01)


def test_where_only_seeds_differ_the_t_test_of_seeds_decides():
    """Utterances all alike: two configurations' difference is the two-sample t test of their seeds' rates."""
    rng, words = np.random.default_rng(5), np.full(50, 20.0)
    a, b = (np.repeat(rng.integers(m, m + 4, (4, 1)), 50, 1).astype(float) for m in (6, 8))
    rates = [stats.error_rate(x, words) for x in (a, b)]
    relative = [r / r.mean() for r in rates]  # variances are pooled relative to the rate
    pooled = np.mean([r.var(ddof=1) for r in relative])
    t = (rates[0].mean() - rates[1].mean()) / np.sqrt(pooled * sum(r.mean() ** 2 for r in rates) / 4)
    expected = 2 * scipy.stats.t.sf(abs(t), 6)
    assert stats.paired_bootstrap(a, b, words, n_resamples=40_000).p == pytest.approx(expected, rel=0.1)


def test_moderated_variances():
    """Alike ones are pooled; one that stands out keeps its own (Smyth 2004)."""
    rng = np.random.default_rng(6)
    alike = [1 + 0.1 * rng.standard_normal(3) for _ in range(40)]
    found = moderate(alike)
    assert found.df > 20
    assert found.apart.sum() <= 3
    relative = np.sqrt(found.variance * 3) / [r.mean() for r in alike]
    assert relative[~found.apart] == pytest.approx(0.1, rel=0.2)
    wild = moderate([*alike, np.array([0.2, 1.0, 1.8])])
    assert wild.variance[-1] == pytest.approx(np.var([0.2, 1.0, 1.8], ddof=1) / 3)
    assert wild.apart[-1] and wild.apart.sum() <= 4
    assert np.median(wild.variance) == pytest.approx(0.1**2 / 3, rel=0.3)
    assert moderate([np.ones(1), np.ones(1)]).df == np.inf  # one seed each: nothing is known
    assert moderate([np.zeros(3), np.zeros(3)]).variance.tolist() == [0, 0]


# --- what must always hold ----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, database=None)
@given(ERRORS)
def test_differences_are_antisymmetric(errors):
    a, b = errors
    for method in ("percentile", "bca"):
        ab = stats.delta_interval(a, b, WORDS, **FEW, method=method)
        ba = stats.delta_interval(b, a, WORDS, **FEW, method=method)
        assert ab.value == pytest.approx(-ba.value)
        # Seeds' draws are the configuration's own, so ends agree as far as 200 resamples tell.
        assert ab.low == pytest.approx(-ba.high, abs=0.5 * (ab.high - ab.low) + 1e-9)
    for test in (stats.paired_bootstrap, stats.permutation):
        ours = test(a[0], b[0], WORDS, **FEW)
        assert test(b[0], a[0], WORDS, **FEW).p == ours.p
        assert 0 < ours.p <= 1 and ours.n == 12


@settings(max_examples=30, deadline=None, database=None)
@given(ERRORS, st.randoms())
def test_order_of_seeds_does_not_matter_and_identical_runs_are_equal(errors, random):
    a, b = errors
    order = random.sample(range(3), 3)
    assert stats.paired_bootstrap(a[order], b, WORDS, **FEW).p == stats.paired_bootstrap(a, b, WORDS, **FEW).p
    for test in (stats.paired_bootstrap, stats.permutation):
        assert test(a, a, WORDS, **FEW)[1:3] == (0, 1)
    assert stats.delta_interval(a[0], a[0], WORDS, **FEW) == (0, 0, 0)
    compared = stats.compare([a, a, b], WORDS, **FEW)
    assert all(c.best or c.tied for c in compared if c.rate.value == min(x.rate.value for x in compared))


@settings(max_examples=30, deadline=None, database=None)
@given(ERRORS)
def test_comparisons(errors):
    groups = [*errors, errors[0, :1], errors[1, 1:]]
    for blocks in (None, list("aabbccddeeff")):
        found = stats.compare(groups, WORDS, **FEW, blocks=blocks)
        assert sum(c.best for c in found) == 1
        for c in found:
            assert c.rate.low <= c.rate.value <= c.rate.high or c.rate.value == 0
            assert c.rate.low >= 0
            assert 0 < c.p <= 1 and 0 < c.p_adjusted <= 1
            assert c.tied == (not c.best and c.p_adjusted > 0.05)
            assert c.delta.value >= 0
            if c.best:
                assert (c.delta, c.p, c.p_adjusted) == ((0, 0, 0), 1, 1)
        again = stats.compare(groups, WORDS, **FEW, blocks=blocks)
        assert [c.p_adjusted for c in again] == [c.p_adjusted for c in found]


def test_of_two_configurations_the_corrected_p_is_the_plain_one():
    a, b = np.random.default_rng(7).poisson(1.5, (2, 3, 80)).astype(float)
    found = stats.compare([a, b], np.full(80, 9.0))
    worse = next(c for c in found if not c.best)
    assert worse.p_adjusted == pytest.approx(worse.p, abs=0.02)  # of other draws
    assert worse.p == pytest.approx(stats.paired_bootstrap(a, b, np.full(80, 9.0)).p, abs=1e-9)


def test_a_clear_loser_is_found_among_many_and_the_tied_stay():
    rng = np.random.default_rng(8)
    groups, words, _ = Simulation(n_configurations=8).grid(rng, shift=np.r_[np.zeros(4), np.full(4, 0.8)])
    found = stats.compare(groups, words)
    assert [c.best or c.tied for c in found] == [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    ("errors", "words", "blocks", "said"),
    [
        ([1, 2], [3], None, "are needed"),
        ([[1, 2]], [3, 4], ["a"], "1 blocks for 2"),
        ([1, np.nan], [3, 4], None, "finite"),
        ([1, -1], [3, 4], None, "negative"),
        ([[[1, 2]]], [3, 4], None, "are needed"),
    ],
)
def test_what_is_no_count(errors, words, blocks, said):
    with pytest.raises(ValueError, match=said):
        stats.paired_bootstrap(errors, [1, 1], words, blocks=blocks)


def test_empty_references_and_single_utterances():
    assert np.isnan(stats.paired_bootstrap([1, 0], [0, 0], [0, 0]).p)
    assert np.isnan(stats.permutation([1, 0], [0, 0], [0, 0]).p)
    assert np.isnan(stats.paired_bootstrap([1], [0], [5]).p)
    assert np.isnan(stats.delta_interval([1], [0], [5], method="bca").low)
    some = stats.paired_bootstrap([1, 2, 0, 3], [0, 2, 1, 1], [5, 0, 4, 6], **FEW)  # insertions without a reference
    assert 0 < some.p <= 1
    assert stats.accuracy([3], [2]) == -0.5
    with pytest.raises(ValueError, match="percentile or bca"):
        stats.delta_interval([1, 2], [1, 1], [3, 3], method="normal")


# --- by simulation ------------------------------------------------------------------------------------------------

CASES = {
    "two seeds": Simulation(n_seeds=2),
    "three seeds": Simulation(n_seeds=3),
    "five seeds": Simulation(n_seeds=5),
    "three seeds that differ by 20 %": Simulation(n_seeds=3, seed=0.25),
    "speakers": Simulation(n_seeds=3, n_speakers=20, n_utterances=200),
    "one seed, and seeds alike": Simulation(n_seeds=1, seed=0.0, n_utterances=200),
}


def measure(case: Simulation, trials: int, seed: int) -> tuple[float, float, dict[str, float]]:
    """(share of intervals that hold the truth, share of grids with an equal one called worse, {test: share at 5 %})."""
    rng, truth, n_in, n_worse = np.random.default_rng(seed), case.true_rate(), 0, 0
    counts = {"paired bootstrap": 0, "permutation": 0}
    for trial in range(trials):
        groups, words, blocks = case.grid(rng)
        options = {"blocks": blocks, "n_resamples": 600, "seed": trial}
        found = stats.compare(groups, words, **options)
        n_in += found[0].rate.includes(truth)
        n_worse += any(not c.best and not c.tied for c in found)
        for a, b in zip(groups[::2], groups[1::2], strict=True):
            for test in (stats.paired_bootstrap, stats.permutation):
                result = test(a, b, words, **options)
                counts[result.test] += result.p < 0.05
    pairs = trials * case.n_configurations // 2
    return n_in / trials, n_worse / trials, {name: count / pairs for name, count in counts.items()}


def test_intervals_and_tests_are_about_right():
    covered, worse, false = measure(CASES["three seeds"], 120, seed=1)
    assert covered > 0.89
    assert worse < 0.12
    assert max(false.values()) < 0.12


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_intervals_hold_the_truth_as_often_as_they_say(case):
    """A thousand grids each: the nominal 95 % are 93 to 97 %, the nominal 5 % of false findings 3 to 7 %."""
    covered, worse, false = measure(CASES[case], 1000, seed=2)
    assert 0.93 <= covered <= 0.97
    assert worse <= 0.07  # of six equal ones, together
    for name, share in false.items():
        assert 0.03 <= share <= 0.07, (name, share)


@pytest.mark.slow
def test_power_is_what_was_asked_for():
    case = Simulation(n_configurations=2, n_seeds=4, n_utterances=300)
    rng, found, asked = np.random.default_rng(3), 0, []
    for trial in range(400):
        groups, words, _ = case.grid(rng, shift=np.array([0.0, 0.28]))
        found += stats.paired_bootstrap(*groups, words, n_resamples=600, seed=trial).p < 0.05
        asked.append(stats.minimum_detectable_effect(groups, words))
    delta = case.true_rate(0.28) - case.true_rate()
    power = found / 400
    # At the difference that 80 % of such experiments would find, about 80 % did.
    assert np.median(asked) == pytest.approx(delta, rel=0.15)
    assert 0.7 <= power <= 0.9
