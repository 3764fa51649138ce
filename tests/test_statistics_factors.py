"""Factorial analysis, mixed models and power: against published analyses, statsmodels, and by simulation."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.report import stats
from asr_lab.report.stats.simulate import Simulation

# Breaks in yarn by wool and tension: Tippett, "Technological applications of statistics", 1950; R's warpbreaks.
WARPBREAKS = {
    ("A", "L"): "26 30 54 25 70 52 51 26 67",
    ("A", "M"): "18 21 29 17 12 18 35 30 36",
    ("A", "H"): "36 21 24 18 10 43 28 15 26",
    ("B", "L"): "27 14 29 19 29 31 41 20 44",
    ("B", "M"): "42 26 19 16 39 28 21 39 29",
    ("B", "H"): "20 21 24 17 13 15 15 16 28",
}
# Yield of dyestuff by batch: Davies & Goldsmith, "Statistical methods in research and production", 1972, table 6.2.
DYESTUFF = [1545, 1440, 1440, 1520, 1580, 1540, 1555, 1490, 1560, 1495, 1595, 1550, 1605, 1510, 1560]
DYESTUFF += [1445, 1440, 1595, 1465, 1545, 1595, 1630, 1515, 1635, 1625, 1520, 1455, 1450, 1480, 1445]


def warpbreaks() -> tuple[np.ndarray, dict[str, list[str]]]:
    rows = [(float(v), *key) for key, values in WARPBREAKS.items() for v in values.split()]
    values, wool, tension = zip(*rows, strict=True)
    return np.array(values), {"wool": list(wool), "tension": list(tension)}


def grid(rng: np.random.Generator, effects: dict[str, list[float]], n_seeds: int, seed_sd: float = 0.0):
    """Values and levels of a full grid, effects additive, seeds shared by all configurations."""
    names = list(effects)
    cells = np.array(np.meshgrid(*(range(len(v)) for v in effects.values()), range(n_seeds), indexing="ij"))
    cells = cells.reshape(len(names) + 1, -1)
    y = sum(np.array(effects[n])[cells[i]] for i, n in enumerate(names)) + rng.standard_normal(cells.shape[1])
    y += seed_sd * rng.standard_normal(n_seeds)[cells[-1]]
    levels = {n: [f"{n}{j}" for j in cells[i]] for i, n in enumerate([*names, "seed"])}
    return y, levels


# --- analysis of variance -----------------------------------------------------------------------------------------


def test_published_analysis_of_variance():
    """summary(aov(breaks ~ wool * tension, warpbreaks)) of R."""
    found = stats.factorial(*warpbreaks())
    rows = {t.name: (t.df, round(t.sum_squares), round(t.f, 3), round(t.p, 6)) for t in found.terms[:3]}
    assert rows == {
        "wool": (1, 451, 3.765, 0.058213),
        "tension": (2, 2034, 8.498, 0.000693),
        "wool x tension": (2, 1003, 4.189, 0.021044),
    }
    assert (found.terms[3].name, found.terms[3].df, round(found.terms[3].sum_squares)) == ("seeds", 48, 5745)
    assert sum(t.share for t in found.terms) == pytest.approx(1)  # balanced: nothing is counted twice
    means = {e.level: e.mean.value for e in found.effects["tension"]}
    assert means == pytest.approx({"L": 36.39, "M": 26.39, "H": 21.67}, abs=0.005)
    assert found.notes == []


@settings(max_examples=25, deadline=None, database=None)
@given(st.integers(0, 10**6))
def test_unbalanced_grids_agree_with_statsmodels(seed):
    rng = np.random.default_rng(seed)
    y, levels = warpbreaks()
    keep = rng.random(len(y)) < 0.6
    frame = pd.DataFrame({"y": y, **levels})[keep]
    if frame.groupby(["wool", "tension"]).ngroups < 6:
        return
    theirs = sm.stats.anova_lm(smf.ols("y ~ C(wool) * C(tension)", frame).fit(), typ=2)
    ours = stats.factorial(np.where(keep, y, np.nan), levels)
    for term, key in (("wool", "C(wool)"), ("tension", "C(tension)"), ("wool x tension", "C(wool):C(tension)")):
        t = next(t for t in ours.terms if t.name == term)
        expected = theirs.loc[key]
        assert (t.sum_squares, t.df) == pytest.approx((expected["sum_sq"], expected["df"]))
        assert (t.f, t.p) == pytest.approx((expected["F"], expected["PR(>F)"]))
    assert any("without a result" in note for note in ours.notes)


def test_seeds_are_the_error_and_a_factor_of_their_own():
    y, levels = grid(
        np.random.default_rng(0), {"encoder": [0, 2, 4], "clipping": [0, 1], "optimizer": [0, 0]}, 4, seed_sd=2
    )
    frame = pd.DataFrame({"y": y, **levels})
    found = stats.factorial(y, levels)
    terms = {t.name: t for t in found.terms}
    assert list(terms)[-2:] == ["higher interactions", "seeds"]
    theirs = sm.stats.anova_lm(smf.ols("y ~ encoder * clipping * optimizer + seed", frame).fit(), typ=2)
    assert terms["seed"].p == pytest.approx(theirs.loc["seed", "PR(>F)"])
    assert terms["encoder"].p == pytest.approx(theirs.loc["encoder", "PR(>F)"])
    assert terms["higher interactions"].sum_squares == pytest.approx(theirs.loc["encoder:clipping:optimizer", "sum_sq"])
    assert found.error == "seeds of one configuration"


def test_without_repeats_interactions_are_the_error():
    y, levels = grid(np.random.default_rng(1), {"a": [0, 3], "b": [0, 1], "c": [0, 0, 1]}, 1)
    found = stats.factorial(y, levels)
    assert found.error == "interactions of three factors or more"
    assert "no configuration was run twice" in found.notes[0]
    assert found.terms[-1].name == "rest"
    two = stats.factorial(y[:4], {"a": list("aabb"), "b": list("xyxy")})
    assert two.error == "nothing"
    assert all(np.isnan(t.p) for t in two.terms)


def test_failed_and_censored_runs_are_counted():
    rng = np.random.default_rng(2)
    y, levels = grid(rng, {"encoder": [0, 0], "clipping": [0, 0]}, 6)
    y[:5], y[-1] = np.inf, np.nan  # one encoder explodes without clipping
    found = stats.factorial(y, levels)
    assert found.ranks and found.n == 23
    assert "5 of 24 runs are censored and hold the last ranks (encoder=encoder0: 5 of 12; " in found.notes[0]
    assert "1 of 24 runs are without a result and are not in the sums" in found.notes[1]
    worst = found.effects["clipping"][0]
    assert (worst.n, worst.n_censored, worst.n_missing) == (12, 5, 0)
    assert worst.effect.low > 0
    # Without them the failing encoder would look as good as the other.
    kept = stats.factorial(y, levels, ranks=False)
    assert kept.n == 18 and "are not in the sums" in kept.notes[0]
    assert next(t for t in found.terms if t.name == "encoder x clipping").p < 0.05


def test_what_cannot_be_analysed_is_said():
    with pytest.raises(ValueError, match="2 runs with a value"):
        stats.factorial([1, 2, np.nan], {"a": list("xyz")})
    with pytest.raises(ValueError, match="3 levels for 2 values"):
        stats.factorial([1, 2], {"a": list("xyz")})
    nested = stats.factorial([1, 2, 3, 4.5], {"a": list("xxyy"), "b": list("ppqq")})
    assert any("cannot be told from the other factors" in note for note in nested.notes)
    same = stats.factorial([1.0, 1, 1, 1], {"a": list("xxyy")})
    assert np.isnan(same.terms[0].p)


def test_interval_of_a_share_is_that_of_the_noncentral_f():
    """Its ends are the noncentralities at which F as large, or as small, is as rare as 2.5 %."""
    found = stats.factorial(*warpbreaks()).terms[1]
    n = found.df + 48 + 1
    for end, tail in ((found.partial.low, 0.975), (found.partial.high, 0.025)):
        assert scipy.stats.ncf.cdf(found.f, found.df, 48, n * end / (1 - end)) == pytest.approx(tail, abs=1e-6)


def shares_of_findings(trials: int, seed: int) -> dict[str, float]:
    rng, counts, covered = np.random.default_rng(seed), {}, 0
    for _ in range(trials):
        y, levels = grid(rng, {"a": [0, 0, 0], "b": [0, 0]}, 4)
        found = stats.factorial(y, levels)
        for t in found.terms[:-1]:
            counts[t.name] = counts.get(t.name, 0) + (t.p < 0.05)
        covered += found.effects["a"][0].mean.includes(0)
    return {"covered": 1 - covered / trials, **{name: c / trials for name, c in counts.items()}}


def test_factors_without_an_effect_are_seldom_found():
    assert max(shares_of_findings(100, seed=3).values()) < 0.13


@pytest.mark.slow
def test_factors_without_an_effect_are_found_as_often_as_they_should_be():
    for name, share in shares_of_findings(1000, seed=4).items():
        assert 0.03 <= share <= 0.07, (name, share)


# --- mixed models -------------------------------------------------------------------------------------------------


def test_published_mixed_model():
    """Bates et al., "Fitting linear mixed-effects models using lme4", JSS 2015: lmer(Yield ~ 1 | Batch, Dyestuff) has
    standard deviations of 42.00 and 49.51, intercept 1527.50 with standard error 19.38, REML criterion 319.65."""
    found = stats.mixed(DYESTUFF, {"batch": [c for c in "ABCDEF" for _ in range(5)]}, random=["batch"])
    batch, residual = found.components
    assert (batch.sd.value, residual.sd.value) == pytest.approx((42.00, 49.51), abs=0.005)
    assert found.intercept.value == pytest.approx(1527.5)
    assert (found.intercept.high - found.intercept.low) / 2 / 1.96 == pytest.approx(19.38, abs=0.005)
    # Theirs has a column of ones where ours has a unit vector: log 30 between them.
    assert -2 * found.log_likelihood + np.log(30) == pytest.approx(319.65, abs=0.005)
    assert batch.sd.low < 42 < batch.sd.high < 110
    assert batch.share == pytest.approx(42.00**2 / (42.00**2 + 49.51**2), abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_mixed_models_agree_with_statsmodels(seed):
    rng = np.random.default_rng(seed)
    y, levels = grid(rng, {"encoder": [0, 1, 2], "clipping": [0, 1]}, 6, seed_sd=1.5)
    y[rng.choice(len(y), 5, replace=False)] = np.nan
    frame = pd.DataFrame({"y": y, **levels}).dropna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = smf.mixedlm("y ~ encoder + clipping", frame, groups="seed").fit(reml=True)
    ours = stats.mixed(y, levels)
    sds = [c.sd.value for c in ours.components]
    assert sds == pytest.approx([np.sqrt(theirs.cov_re.iloc[0, 0]), np.sqrt(theirs.scale)], rel=1e-3)
    contrast = ours.means["clipping"]["clipping1"].value - ours.means["clipping"]["clipping0"].value
    assert contrast == pytest.approx(theirs.params["clipping[T.clipping1]"], abs=1e-6)
    assert ours.n_left_out == 5


def test_crossed_random_factors_and_none_that_varies():
    rng = np.random.default_rng(9)
    a, b = np.repeat(np.arange(8), 6), np.tile(np.arange(6), 8)
    y = 5 + 2 * rng.standard_normal(8)[a] + 1 * rng.standard_normal(6)[b] + 0.5 * rng.standard_normal(48)
    frame = pd.DataFrame({"y": y, "a": a, "b": b, "all": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = smf.mixedlm("y ~ 1", frame, groups="all", vc_formula={"a": "0 + C(a)", "b": "0 + C(b)"}, re_formula="0")
        theirs = model.fit(reml=True)
    ours = stats.mixed(y, {"a": [str(i) for i in a], "b": [str(i) for i in b]}, random=["a", "b"])
    assert [c.sd.value for c in ours.components[:2]] == pytest.approx(np.sqrt(theirs.vcomp), rel=0.01)
    flat = stats.mixed(np.tile([1.0, 2.0, 3.0, 4.0], 3), {"seed": [s for s in "abc" for _ in range(4)]})
    assert flat.components[0].sd.value == 0 and flat.components[0].share == 0
    with pytest.raises(ValueError, match="no such factor"):
        stats.mixed([1, 2], {"a": ["x", "y"]})
    with pytest.raises(ValueError, match="more runs"):
        stats.mixed([1, 2], {"a": ["x", "y"], "seed": ["1", "2"]})


# --- power --------------------------------------------------------------------------------------------------------


def test_power_of_a_plain_t_test():
    """Cohen 1988: 64 in each group find half a standard deviation in 80 % of trials; so do seeds that alone vary."""
    rng, words = np.random.default_rng(5), np.full(40, 1000.0)
    n, sd = 64, 10.0
    draws = rng.standard_normal((2, n, 1))
    draws = (draws - draws.mean(1, keepdims=True)) / draws.std(1, ddof=1, keepdims=True)
    groups = [np.repeat(100 + sd * d, 40, 1) for d in draws]
    assert stats.minimum_detectable_effect(groups, words) == pytest.approx(0.5 * sd / 1000, rel=0.01)


def test_more_evidence_separates_smaller_differences():
    groups, words, speakers = Simulation(n_configurations=3, n_seeds=3, n_speakers=20).grid(np.random.default_rng(6))
    now = stats.minimum_detectable_effect(groups, words)
    assert stats.minimum_detectable_effect(groups, words, n_seeds=10) < now
    assert stats.minimum_detectable_effect(groups, words, n_utterances=1300) < now
    assert stats.minimum_detectable_effect(groups, words, power=0.9) > now
    assert stats.minimum_detectable_effect(groups, words, n_seeds=1) == np.inf  # seeds matter, and one says nothing
    assert stats.minimum_detectable_effect(groups, words, blocks=speakers) > 0
    with pytest.raises(ValueError, match="two configurations"):
        stats.minimum_detectable_effect(groups[:1], words)


@pytest.mark.parametrize("shift", [0.15, 0.4, 1.5])
def test_what_is_needed_is_just_enough(shift):
    groups, words, _ = Simulation(n_configurations=2, n_seeds=3).grid(
        np.random.default_rng(7), shift=np.array([0, shift])
    )
    found = stats.needed(*groups, words)
    assert found.delta == pytest.approx(
        float(stats.error_rate(groups[0], words).mean() - stats.error_rate(groups[1], words).mean())
    )
    assert found.detectable == pytest.approx(stats.minimum_detectable_effect(groups, words))
    assert found.seeds_known
    for what, number in (("n_seeds", found.n_seeds), ("n_utterances", found.n_utterances)):
        if number < np.inf:
            assert stats.minimum_detectable_effect(groups, words, **{what: int(number)}) <= abs(found.delta) * 1.0001
            if number > 2:
                less = stats.minimum_detectable_effect(groups, words, **{what: int(number) - 1})
                assert less > abs(found.delta)


def test_needed_of_one_seed_and_of_equal_ones():
    groups, words, _ = Simulation(n_configurations=2, n_seeds=1).grid(np.random.default_rng(8))
    one = stats.needed(*groups, words)
    assert not one.seeds_known and one.n_seeds in (1, np.inf)
    same = stats.needed(groups[0], groups[0], words)
    assert (same.delta, same.n_seeds, same.n_utterances) == (0, np.inf, np.inf)
    with pytest.raises(ValueError, match="reference words"):
        stats.needed([1], [0], [3])
