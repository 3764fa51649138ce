"""The grid of an experiment: which cells it means, and one clear line where it means none."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.errors import ConfigError
from asr_lab.sweep.algebra import SAME, cells, overridden
from asr_lab.sweep.conditions import holds
from asr_lab.sweep.sampling import sampled


class TestProduct:
    def test_axes_multiply_in_the_order_written(self):
        found = cells({"encoder": ["rnn", "bilstm"], "seed": [1, 2]})
        assert found == [
            {"encoder": "rnn", "seed": 1},
            {"encoder": "rnn", "seed": 2},
            {"encoder": "bilstm", "seed": 1},
            {"encoder": "bilstm", "seed": 2},
        ]

    def test_one_value_is_a_list_of_one_and_the_same_cell_comes_once(self):
        assert cells({"encoder": "rnn", "seed": [1, 1, 2]}) == [{"encoder": "rnn", "seed": s} for s in (1, 2)]

    def test_what_looks_alike_is_not_the_same(self):
        assert len(cells({"a": [1, True, "1", None, "null"]})) == 5

    @settings(max_examples=30, deadline=None)
    @given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(), min_size=1, max_size=4, unique=True)))
    def test_as_many_as_the_product_of_the_lengths(self, grid):
        if grid:
            found = cells(grid)
            assert len(found) == math.prod(map(len, grid.values())) and all(list(c) == list(grid) for c in found)


class TestWords:
    def test_pairs(self):
        grid = {"zip": {"encoder": ["rnn", "conformer"], "optimizer.lr": [0.1, 0.01]}, "seed": [1, 2]}
        assert [tuple(c.values()) for c in cells(grid)] == [
            ("rnn", 0.1, 1),
            ("rnn", 0.1, 2),
            ("conformer", 0.01, 1),
            ("conformer", 0.01, 2),
        ]

    def test_axes_of_some_cells(self):
        grid = {
            "clipping": ["none", "norm", "agc"],
            "when": [
                {"if": {"clipping": "norm"}, "grid": {"clipping.threshold": [1, 10]}},
                {"if": {"clipping": ["agc"]}, "grid": {"clipping.threshold": 0.01}},
            ],
        }
        assert [tuple(c.values()) for c in cells(grid)] == [("none",), ("norm", 1), ("norm", 10), ("agc", 0.01)]

    def test_several_grids(self):
        grid = {
            "any": [{"encoder": ["rnn", "lstm"]}, {"encoder": "conv", "encoder.kernel_size": [3, 5]}],
            "seed": [1, 2],
        }
        found = cells(grid)
        assert len(found) == 8 and found[0] == {"encoder": "rnn", "seed": 1}
        assert found[-1] == {"encoder": "conv", "encoder.kernel_size": 5, "seed": 2}

    def test_explicit_cells_alone_or_beside_others(self):
        assert cells({"list": [{"encoder": "rnn"}, {"seed": 3}]}) == [{"encoder": "rnn"}, {"seed": 3}]
        assert len(cells({"seed": [1, 2], "list": [{"seed": 2}, {"seed": 3}]})) == 3

    def test_include_and_exclude(self):
        grid = {"encoder": ["rnn", "conv"], "optimizer.lr": [0.1, 0.01, 0.001]}
        rnn = {**grid, "include": [{"encoder": "rnn"}, {"optimizer.lr": "< 0.01"}]}
        assert [tuple(c.values()) for c in cells(rnn)] == [("rnn", 0.1), ("rnn", 0.01), ("rnn", 0.001), ("conv", 0.001)]
        less = {**grid, "exclude": [{"encoder": "conv", "optimizer.lr": ">= 0.01"}]}
        assert cells(less) == cells(rnn)

    def test_repeat_is_seeds_from_one_of_every_cell(self):
        assert [c["seed"] for c in cells({"encoder": ["rnn", "conv"], "repeat": 3})] == [1, 2, 3, 1, 2, 3]
        assert cells({"repeat": 2}) == [{"seed": 1}, {"seed": 2}]

    def test_grids_nest(self):
        inner = {"any": [{"zip": {"a": [1, 2], "b": [3, 4]}}, {"list": [{"c": 5}]}], "exclude": [{"a": 1}]}
        assert cells({"any": [inner], "d": [6, 7]}) == [{"a": 2, "b": 4, "d": 6}, {"a": 2, "b": 4, "d": 7}, *(
            {"c": 5, "d": d} for d in (6, 7)
        )]  # fmt: skip


class TestConditions:
    @pytest.mark.parametrize(
        ("condition", "fulfilled"),
        [
            ({"a": 1}, True),
            ({"a": 2}, False),
            ({"a": [2, 1]}, True),
            ({"a": "> 0.5"}, True),
            ({"a": ">1"}, False),
            ({"a": "<= 1"}, True),
            ({"a": "!= 1"}, False),
            ({"b": "!= 1"}, True),
            ({"b": "> 1"}, False),
            ({"a": 1, "c": "x"}, True),
            ({"a": 1, "c": "y"}, False),
        ],
    )
    def test_all_entries_must_hold(self, condition, fulfilled):
        assert holds(condition, {"a": 1, "c": "x"}, "grid") is fulfilled


AXES = {
    "lr": {"log": [1e-4, 1e-2]},
    "dropout": {"uniform": [0.0, 0.5]},
    "n": {"int": [1, 3]},
    "e": {"choice": ["x", "y"]},
}


class TestSample:
    @pytest.mark.parametrize("method", ["random", "sobol"])
    def test_within_the_ranges_and_the_same_again(self, method):
        space = {"n": 64, "method": method, "seed": 3, "axes": AXES}
        found = sampled(space, "grid.sample")
        assert found == sampled(space, "grid.sample") != sampled({**space, "seed": 4}, "grid.sample")
        assert len(found) == 64 and all(1e-4 <= c["lr"] <= 1e-2 and 0 <= c["dropout"] <= 0.5 for c in found)
        assert {c["n"] for c in found} == {1, 2, 3} and {c["e"] for c in found} == {"x", "y"}
        assert all(type(c["n"]) is int for c in found)

    def test_sobol_fills_each_half_equally(self):
        found = sampled({"n": 64, "method": "sobol", "axes": {"lr": {"log": [1e-4, 1e-2]}}}, "grid.sample")
        assert sum(c["lr"] < 1e-3 for c in found) == 32

    def test_a_sample_multiplies_with_axes(self):
        grid = {"encoder": ["rnn", "conv"], "sample": {"n": 5, "axes": {"optimizer.lr": {"log": [1e-4, 1e-2]}}}}
        found = cells(grid)
        assert len(found) == 10 and found[0]["optimizer.lr"] == found[5]["optimizer.lr"]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ([1], "grid: axes and their values are wanted"),
        ({"encoder": []}, "grid.encoder: a list of values"),
        ({"encoder": {"rnn": 1}}, "grid.encoder: values are wanted"),
        ({"zipp": {"a": [1]}}, "did you mean 'zip'|zip"),
        ({"zip": {"a": [1, 2], "b": [1]}}, "grid.zip: paired axes have equally many values; a has 2, b has 1"),
        ({"zip": {"a": [1]}, "a": [2]}, "grid: a is an axis twice"),
        ({"a": [1], "when": [{"if": {"a": 1}}]}, r"grid.when\[0\]: 'if' and 'grid'"),
        ({"a": [1], "when": [{"if": {"a": 1}, "grid": {"a": 2}}]}, r"grid.when\[0\]: a is an axis twice"),
        ({"list": [{"a": [1, 2]}]}, r"grid.list\[0\]: one value for each axis"),
        ({"a": [1], "exclude": [{"a": 1}]}, "leave no cell"),
        ({"a": [1], "exclude": {"a": 1}}, "grid.exclude: a list is wanted"),
        ({"a": ["x"], "exclude": [{"a": "> 1"}]}, r"grid.exclude\[0\].a: > compares numbers, 'x' and '1' came"),
        ({"a": [1], "repeat": 0}, "grid.repeat: a number of seeds"),
        ({"seed": [1], "repeat": 2}, "grid.repeat: seed is an axis already"),
        ({"sample": {"axes": {"a": {"log": [1, 2]}}}}, "grid.sample.n: a number of cells"),
        ({"sample": {"n": 2, "axes": {"a": {"log": [0, 2]}}}}, "grid.sample.axes.a.log: rising positive ends"),
        ({"sample": {"n": 2, "axes": {"a": [1, 2]}}}, "grid.sample.axes.a: one of uniform"),
        ({"sample": {"n": 2, "method": "grid", "axes": {"a": {"log": [1, 2]}}}}, "choose from: random, sobol"),
        ({"sample": {"m": 2}}, "no such key 'm'"),
        ({f"a{i}": list(range(100)) for i in range(5)}, "10,000,000,000 cells"),
        ({1: [2]}, "grid: the name of an axis is wanted, 1 came"),
    ],
)
def test_what_is_no_grid_is_one_line_that_names_the_place(grid, said):
    with pytest.raises(ConfigError, match=said) as error:
        cells(grid)
    assert "\n" not in str(error.value)


def test_a_hundred_thousand_cells():
    grid = {"a": list(range(100)), "b": list(range(100)), "repeat": 10}
    assert len(cells(grid)) == 100_000


class TestOverridden:
    """The command line's axis takes the place of the grid's, wherever that is."""

    @pytest.mark.parametrize(
        ("grid", "axis", "values", "expected"),
        [
            ({"a": [1, 2], "b": [3]}, "a", [9], {"a": [9], "b": [3]}),
            ({"zip": {"a": [1, 2], "b": [3, 4]}}, "a", [9], {"a": [9], "zip": {"b": [3, 4]}}),
            ({"zip": {"a": [1, 2]}}, "a", [9], {"a": [9]}),
            ({"a": [1], "repeat": 3}, "seed", [7], {"a": [1], "seed": [7]}),
            (
                {"a": [1], "when": [{"if": {"a": 1}, "grid": {"b": [1, 2]}}]},
                "b",
                [9],
                {"a": [1], "when": [{"if": {"a": 1}, "grid": {"b": [9]}}]},
            ),
            ({"any": [{"a": [1]}, {"a": [2], "b": [3]}]}, "a", [9], {"any": [{"a": [9]}, {"a": [9], "b": [3]}]}),
            (
                {"list": [{"a": 1, "b": 2}, {"b": 3}]},
                "a",
                [8, 9],
                {"list": [{"a": 8, "b": 2}, {"a": 9, "b": 2}, {"b": 3}]},
            ),
            (
                {"sample": {"n": 4, "axes": {"a": {"log": [1, 2]}, "b": {"int": [1, 2]}}}},
                "a",
                [9],
                {"a": [9], "sample": {"n": 4, "axes": {"b": {"int": [1, 2]}}}},
            ),
        ],
    )
    def test_in_its_place(self, grid, axis, values, expected):
        found, there = overridden(grid, axis, values)
        assert there and found == expected
        assert cells(found)

    def test_what_is_not_there_is_said(self):
        grid = {"a": [1], "when": [{"if": {"a": 1}, "grid": {"b": [1]}}]}
        assert overridden(grid, "c", [1]) == (grid, False)

    def test_conditions_see_the_new_values(self):
        grid = {"a": ["x", "y"], "when": [{"if": {"a": "x"}, "grid": {"b": [1, 2]}}]}
        assert cells(overridden(grid, "a", ["y"])[0]) == [{"a": "y"}]


def test_what_is_left_out_is_told_with_its_reason():
    left: list = []
    found = cells({"a": [1, 2, 3], "include": [{"a": [1, 2]}], "exclude": [{"a": "> 5"}, {"a": 2}]}, left)
    assert found == [{"a": 1}]
    assert left == [({"a": 3}, "fits none of grid.include"), ({"a": 2}, "grid.exclude[1]: {'a': 2}")]


def test_what_comes_twice_is_left_out_and_told():
    left: list = []
    assert cells({"a": [1, 2, 1], "b": [3, 3]}, left) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    assert [reason for _, reason in left] == [SAME] * 4
