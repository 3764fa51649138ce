"""Heat maps of the report: means over the rest, cells that failed, colours that can be read."""

import math

import pytest

from asr_lab.report.collect import collect
from asr_lab.report.heat_maps import cividis, heat_maps, levels, luminance
from asr_lab.report.render import render
from asr_lab.report.summary import summarise

from .test_report import write_cell, write_plan

RATES = {"rnn": 0.4, "bilstm": 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """2 encoders x 3 thresholds x 2 optimizers; rnn exploded at 100 with both optimizers, and one bilstm is missing."""
    folder = tmp_path_factory.mktemp("outputs") / "pairs"
    cells = {}
    for encoder, rate in RATES.items():
        for threshold in ("100.0", "1.0", "10.0"):
            for optimizer in ("sgd", "adam"):
                name = f"{encoder}-{threshold}-{optimizer}"
                factors = {"encoder": encoder, "clipping.threshold": threshold, "optimizer": optimizer, "seed": 1}
                cells[name] = factors
                if encoder == "rnn" and threshold == "100.0":
                    write_cell(folder / name, factors, rate, n=3, status="exploded", reason="nan", metrics={})
                elif name != "bilstm-10.0-adam":
                    write_cell(folder / name, factors, rate, n=30)
    write_plan(folder, cells)
    return folder


def maps(folder):
    s = summarise(collect(folder))
    found = heat_maps(s.configurations, s.swept, s.experiment.cells)
    return s, {frozenset((m.down, m.across)): m for m in found}


def square(found, down, across):
    [squares] = [squares for level, squares in found.rows if level == down]
    return squares[found.columns.index(across)]


def test_every_pair_has_a_map_of_means_over_the_rest(folder):
    s, found = maps(folder)
    assert len(found) == 3
    pair = found[frozenset(("encoder", "clipping.threshold"))]
    assert [level for level, _ in pair.rows] == ["1.0", "10.0", "100.0"]  # numbers in their order, the longer side down
    rates = [
        r.rate.value
        for r in s.configurations
        if (r.factors["encoder"], r.factors["clipping.threshold"]) == ("rnn", "1.0")
    ]
    assert len(rates) == 2 and square(pair, "1.0", "rnn").value == pytest.approx(sum(rates) / 2)
    assert pair.averaged


def test_cells_without_a_result_are_marked_and_never_dropped(folder):
    _, found = maps(folder)
    pair = found[frozenset(("encoder", "clipping.threshold"))]
    lost = square(pair, "100.0", "rnn")
    assert math.isnan(lost.value) and (lost.n, lost.of, lost.failed, lost.waiting) == (0, 2, 2, 0)
    partly = square(pair, "10.0", "bilstm")
    assert math.isfinite(partly.value) and (partly.n, partly.failed, partly.waiting) == (1, 0, 1) and partly.partial
    assert not square(pair, "1.0", "rnn").partial
    assert sum(s.best for _, squares in pair.rows for s in squares) == 1
    files = render(folder)
    page, text = files["html"].read_text(), files["md"].read_text()
    assert '✕2<span class="unseen"> failed</span>' in page and '…1<span class="unseen"> to come</span>' in page
    assert "(2 failed)" in text and "(1 to come)" in text


def test_levels_keep_the_order_of_the_plan_and_absent_ones_end(folder):
    cells = collect(folder).cells
    assert levels(cells, "encoder") == ["rnn", "bilstm"]
    assert levels(cells, "nothing") == ["–"]


def test_one_that_went_astray_leaves_contrast_to_the_others(tmp_path):
    rates = {("a", "x"): 0.1, ("a", "y"): 0.12, ("b", "x"): 0.11, ("b", "y"): 1.0}
    cells = {f"{e}{c}": {"encoder": e, "clipping": c, "seed": 1} for e, c in rates}
    for name, factors in cells.items():
        write_cell(tmp_path / name, factors, rates[factors["encoder"], factors["clipping"]], n=200)
    write_plan(tmp_path, cells)
    [found] = maps(tmp_path)[1].values()
    assert found.cut and found.high < 0.5
    backgrounds = {s.background for _, squares in found.rows for s in squares}
    assert len(backgrounds) >= 3  # over the whole range, three of them would look the same


def test_text_stands_out_from_every_colour():
    for i in range(101):
        light = luminance(cividis(i / 100))
        ratio = (light + 0.05) / 0.05 if light > 0.179 else 1.05 / (light + 0.05)
        assert ratio >= 4.5
    lightness = [luminance(cividis(i / 100)) for i in range(101)]
    assert lightness == sorted(lightness)  # told apart without seeing colour
