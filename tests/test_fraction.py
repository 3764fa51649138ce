"""The part of a grid that fits a budget still tells the named contrasts apart, and says what it costs in certainty."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.errors import ConfigError
from asr_lab.sweep.fraction import design, fraction, seconds_of

GRID = [
    {"encoder": e, "clipping": c, "optimizer.lr": lr, "seed": s}
    for e, c, lr, s in itertools.product(["rnn", "cnn", "conformer"], ["none", "norm"], [0.1, 0.01], [1, 2])
]


def test_the_whole_grid_where_it_fits():
    found = fraction(GRID, [1.0] * len(GRID), 24.0)
    assert found.kept == list(range(24)) and set(found.inflation.values()) == {1.0}


def test_half_a_balanced_grid_costs_the_square_root_of_two():
    found = fraction(GRID, [1.0] * len(GRID), 12.0)
    assert len(found.kept) == 12 and found.seconds == 12
    for contrast in ("encoder", "clipping", "optimizer.lr"):
        assert found.inflation[contrast] == pytest.approx(2**0.5, rel=0.03)


def test_every_level_and_interaction_stays():
    found = fraction(GRID, [1.0] * len(GRID), 6.0, ["encoder*clipping"])
    kept = {(GRID[i]["encoder"], GRID[i]["clipping"]) for i in found.kept}
    assert len(found.kept) == 6 and len(kept) == 6


def test_cheap_cells_are_preferred_where_both_tell_the_same():
    seconds = [1.0 if cell["seed"] == 1 else 3.0 for cell in GRID]
    found = fraction(GRID, seconds, 12.0)
    assert {GRID[i]["seed"] for i in found.kept} == {1}


def test_a_budget_that_is_too_small_says_what_it_takes():
    with pytest.raises(ConfigError, match=r"take at least 5 s, 3 s came"):
        fraction(GRID, [1.0] * len(GRID), 3.0)
    fraction(GRID, [1.0] * len(GRID), 5.0)


def test_mistakes():
    with pytest.raises(ConfigError, match="--contrast encodr: no such axis; did you mean 'encoder'"):
        fraction(GRID, [1.0] * len(GRID), 12.0, ["encodr"])
    confounded = [{"a": 1, "b": 1}, {"a": 2, "b": 2}]
    with pytest.raises(ConfigError, match="cannot tell a, b apart"):
        fraction(confounded, [1.0, 1.0], 1.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 24), st.integers(0, 10**6))
def test_never_above_the_budget_and_always_of_full_rank(n, seed):
    rng = np.random.default_rng(seed)
    cost = rng.uniform(0.5, 2.0, len(GRID))
    try:
        found = fraction(GRID, cost.tolist(), float(n))
    except ConfigError:  # too small: the case above
        return
    assert found.seconds <= n + 1e-6 and cost[found.kept].sum() == pytest.approx(found.seconds)
    x, _ = design(GRID, ["encoder", "clipping", "optimizer.lr"])
    assert np.linalg.matrix_rank(x[found.kept]) == x.shape[1]
    assert all(v >= 1 - 1e-9 for v in found.inflation.values())


def test_times():
    assert [seconds_of(t) for t in ("90s", "30m", "2h", "1h30m", "1.5 h", "2d", "10min")] == [
        90, 1800, 7200, 5400, 5400, 172800, 600,
    ]  # fmt: skip
    for text in ("2", "h", "2 weeks", "1h and", ""):
        with pytest.raises(ConfigError, match="a time such as 2h"):
            seconds_of(text)
