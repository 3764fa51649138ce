"""Response curves of the report: the score against a number that was swept."""

import itertools
import re

import pytest

from asr_lab.report.collect import collect
from asr_lab.report.configurations import configurations, swept_factors
from asr_lab.report.render import render
from asr_lab.report.responses import responses

from .test_report import write_cell, write_plan

RATES = {"0.1": 0.35, "1.0": 0.2, "10.0": 0.25, "100.0": 0.4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """2 encoders x (norm at 4 thresholds, agc at one, none)."""
    folder = tmp_path_factory.mktemp("outputs") / "thresholds"
    cells = {}
    for encoder in ("rnn", "bilstm"):
        choices = [("norm", t, r) for t, r in RATES.items()] + [("agc", "0.01", 0.22), ("none", "–", 0.5)]
        for clipping, threshold, rate in choices:
            factors = {"encoder": encoder, "clipping": clipping, "clipping.threshold": threshold, "seed": 1}
            cells[f"{encoder}-{clipping}-{threshold}"] = factors
            share = 1 / float(threshold) / 10 if clipping == "norm" else 0.3
            metrics = {"test/wer": rate, "train/clipped": share}
            write_cell(folder / f"{encoder}-{clipping}-{threshold}", factors, rate, n=60, metrics=metrics)
    write_plan(folder, cells)
    return folder


def found(folder):
    experiment = collect(folder)
    return responses(configurations(experiment, 200, 0.95, 0), swept_factors(experiment))


def test_a_curve_for_each_encoder_and_lines_across_for_the_other_choices(folder):
    rnn, bilstm, both = found(folder)
    assert {rnn.facet, bilstm.facet} == {"rnn", "bilstm"} and rnn.key == "clipping.threshold" and rnn.log
    curve, *across = rnn.lines
    assert curve.label == "norm" and list(curve.xs) == [0.1, 1.0, 10.0, 100.0]
    assert all(low <= mean <= high for low, mean, high in zip(curve.low, curve.mean, curve.high, strict=True))
    assert {line.label for line in across} == {"agc", "none"} and all(len(line.xs) == 1 for line in across)
    assert both.facet == "all" and {line.label for line in both.lines} == {"rnn · norm", "bilstm · norm"}


def test_share_of_clipped_steps_goes_with_the_curve_only(folder):
    [line] = found(folder)[0].clipped
    assert list(line.mean) == pytest.approx([1.0, 0.1, 0.01, 0.001])


def test_a_number_with_two_values_is_no_curve(tmp_path):
    cells = {f"c{t}": {"clipping.threshold": t, "seed": 1} for t in (1.0, 2.0)}
    for name, factors in cells.items():
        write_cell(tmp_path / name, factors, 0.2)
    write_plan(tmp_path, cells)
    assert found(tmp_path) == []


def test_they_are_on_the_page(folder):
    page = render(folder)["html"].read_text()
    section = page.partition('<h2 id="responses">')[2].partition("</section>")[0]
    assert section.count("<svg") == 5 and "nan" not in section
    # Each threshold is a decade apart on the axis.
    chart = section.partition("<svg")[2]
    at = [float(re.search(rf'x="([\d.]+)"[^>]*>{t}<', chart)[1]) for t in ("0.1", "1", "10", "100")]
    steps = [b - a for a, b in itertools.pairwise(at)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
