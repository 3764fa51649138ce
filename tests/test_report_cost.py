"""Cost against error: the Pareto front by definition, and the chart that shows it."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.report.collect import collect
from asr_lab.report.cost import Cost, Point, chart, costs, front
from asr_lab.report.render import render
from asr_lab.report.stats import Interval
from asr_lab.report.summary import summarise

from .test_report import Tags, write_cell, write_plan


def points(pairs):
    return [Point(i, f"p{i}", c, Interval(r, r, r)) for i, (c, r) in enumerate(pairs)]


PAIRS = st.lists(
    st.tuples(st.integers(1, 9).map(float), st.integers(0, 9).map(lambda n: n / 10)), min_size=1, max_size=12
)


@settings(max_examples=200, deadline=None, database=None)
@given(PAIRS)
def test_front_is_what_nothing_dominates(pairs):
    there = points(pairs)

    def dominated(p):
        return any(
            q.cost <= p.cost and q.rate.value <= p.rate.value and (q.cost, q.rate.value) != (p.cost, p.rate.value)
            for q in there
        )

    expected = {(p.cost, p.rate.value) for p in there if not dominated(p)}
    found = front(there)
    assert {(p.cost, p.rate.value) for p in found} == expected and len(found) == len(expected)
    assert all(a.cost < b.cost and a.rate.value > b.rate.value for a, b in itertools.pairwise(found))


@settings(max_examples=50, deadline=None, database=None)
@given(PAIRS)
def test_chart_is_whole_for_any_costs(pairs):
    there = points(pairs)
    svg = chart(Cost("parameters", "parameters", there, front(there)), "WER").svg
    assert "nan" not in svg and "inf" not in svg
    Tags(svg)


def test_costs_that_all_share_are_no_chart(tmp_path):
    cells = {e: {"encoder": e, "seed": 1} for e in "abc"}
    for i, (name, factors) in enumerate(cells.items()):
        over = {"parameters": 1_000_000 * (i + 1), "seconds": {"train": 60.0, "total": 61.0}}
        write_cell(tmp_path / name, factors, 0.3 - 0.1 * i, n=60, **over)
    write_plan(tmp_path, cells)
    found = costs(summarise(collect(tmp_path)).configurations)
    assert [c.key for c in found] == ["parameters"]  # the memory of all is the same, and so is the time
    assert [p.label for p in found[0].front] == ["a", "b", "c"]
    page, text = (render(tmp_path)[k].read_text() for k in ("html", "md"))
    assert 'aria-label="Test WER against parameters"' in page and 'class="front"' in page
    assert "| a | 1.00 M |" in text


def test_cost_is_a_mean_over_seeds_and_nothing_without_a_number(tmp_path):
    for seed, parameters in ((1, 100), (2, 300)):
        write_cell(tmp_path / f"a{seed}", {"encoder": "a", "seed": seed}, 0.2, n=30, parameters=parameters)
        write_cell(tmp_path / f"b{seed}", {"encoder": "b", "seed": seed}, 0.2, n=30, parameters=math.nan)
        write_cell(tmp_path / f"c{seed}", {"encoder": "c", "seed": seed}, 0.2, n=30, parameters=5)
    [found] = [c for c in costs(summarise(collect(tmp_path)).configurations) if c.key == "parameters"]
    assert {p.label: p.cost for p in found.points} == {"a": pytest.approx(200), "c": 5}
