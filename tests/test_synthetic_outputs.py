"""Folders of many runs that benchmarks and slow tests are made of: they must be what a sweep leaves."""

import json
import math
import sys
from pathlib import Path

import jiwer
import pytest

from asr_lab.report.collect import collect
from asr_lab.run import Run
from asr_lab.sweep.state import state_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import page_clients
import report as benchmark
from synthetic_outputs import UNFINISHED, write_outputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_outputs(tmp_path_factory.mktemp("outputs"), n_runs=30, n_points=40, n_utterances=12)


def test_the_report_reads_it_without_a_complaint(folder):
    experiment = collect(folder)
    assert len(experiment.cells) == 30 and experiment.axes["clipping.threshold"] == ["0.1", "0.3", "1.0", "3.0", "10.0"]
    assert not experiment.damage and not any(c.damage for c in experiment.cells)
    statuses = [c.status for c in experiment.cells]
    assert [statuses[i] for i in UNFINISHED if i < 30] == ["failed", "exploded"] and statuses.count("done") == 28
    assert {len(c.curve) for c in experiment.cells if c.done} == {40}
    assert state_of(folder).counts["done"] == 28


def test_each_run_is_the_one_that_its_configuration_says(folder):
    for path in sorted(folder.glob("*/result.json"))[:5]:
        run = Run.open(path.parent)
        assert run.fingerprint == json.loads(path.read_text())["fingerprint"]


def test_counts_are_those_of_the_texts(folder):
    path = sorted(folder.glob("*/hyps.test.jsonl"))[0]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        words, chars = jiwer.process_words(row["ref"], row["hyp"]), jiwer.process_characters(row["ref"], row["hyp"])
        assert row["sub"] + row["del"] + row["ins"] == words.substitutions + words.deletions + words.insertions
        assert row["char_errors"] == chars.substitutions + chars.deletions + chars.insertions
    wer = sum(r["sub"] + r["del"] + r["ins"] for r in rows) / sum(r["words"] for r in rows)
    assert math.isclose(json.loads((path.parent / "result.json").read_text())["metrics"]["test/wer"], wer)


@pytest.mark.slow
def test_the_benchmark_measures_the_report(folder):
    found = benchmark.report(folder)
    assert found["cells"] == 30 and found["s"] > 0 and found["peak_mib"] > 10 and found["page_mb"] > 0


def test_quantiles_and_the_plain_loop():
    assert benchmark._quantile([3.0, 1.0, 2.0], 0.5) == 2.0 and benchmark._quantile([1.0], 0.95) == 1.0
    rates = benchmark._plain([1, 0, 2], [2, 2, 2])
    assert len(rates) == benchmark.LOOPED and abs(sum(rates) / len(rates) - 0.5) < 0.05


def test_a_browser_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(page_clients.shutil, "which", lambda name: None)
    assert page_clients.painted("http://127.0.0.1:1/", 1) in ("no chromium", "no playwright")
