"""The report: numbers against closed forms and jiwer, folders in every state of damage, pages against hostile text."""

import csv
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binom

from asr_lab.errors import AsrLabError
from asr_lab.report import stats
from asr_lab.report.collect import collect
from asr_lab.report.configurations import Spread
from asr_lab.report.formats import percent, seconds, short, span
from asr_lab.report.render import render, table
from asr_lab.report.script import SCRIPT
from asr_lab.report.stats import resample
from asr_lab.report.summary import summarise
from asr_lab.report.svg import ticks
from asr_lab.report.svg_lines import Line, line_chart
from asr_lab.report.words import align, columns, confusions

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "yes", "no", "stop", "go", "left", "right", "up", "down")


def recognise(rng: random.Random, ref: str, rate: float) -> str:
    """`ref` with about `rate` of its words wrong."""
    out = []
    for word in ref.split():
        u = rng.random()
        if u < 0.6 * rate:
            out.append(rng.choice(WORDS))
        elif u >= 0.85 * rate:
            out.append(word)
        if rng.random() < 0.15 * rate:
            out.append(rng.choice(WORDS))
    return " ".join(out)


def row(i: int, ref: str, hyp: str, speaker: str) -> dict:
    w, c = jiwer.process_words([ref], [hyp]), jiwer.process_characters([ref], [hyp])
    return {
        "id": f"utt{i:04d}",
        "ref": ref,
        "hyp": hyp,
        "sub": w.substitutions,
        "del": w.deletions,
        "ins": w.insertions,
        "words": len(ref.split()),
        "char_errors": c.substitutions + c.deletions + c.insertions,
        "chars": len(ref),
        "speaker": speaker,
        "duration": 0.4 * len(ref.split()),
    }


def references(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 12))) for _ in range(n)]


def write_cell(
    folder: Path, factors: dict, rate: float, n: int = 40, *, speakers: int = 4, hyp: str = "", **over
) -> dict:
    """A finished cell as a run leaves it; `over` replaces entries of result.json."""
    rng = random.Random(json.dumps(factors))
    rows = [row(i, ref, recognise(rng, ref, rate), f"spk{i % speakers}") for i, ref in enumerate(references(n))]
    if hyp:
        rows[0] = row(0, rows[0]["ref"], hyp, rows[0]["speaker"])
    wer = sum(r["sub"] + r["del"] + r["ins"] for r in rows) / sum(r["words"] for r in rows)
    cer = sum(r["char_errors"] for r in rows) / sum(r["chars"] for r in rows)
    curve = [rate + (1 - rate) * 0.75**e * (1 + 0.1 * rng.random()) for e in range(20)]
    pace = 11 + 5 * rng.random()
    result = {
        "status": "done",
        "reason": None,
        "fingerprint": f"{rng.getrandbits(64):016x}",
        "experiment": folder.parent.name,
        "cell": folder.name,
        "factors": {"decoder": "ctc", **factors},
        "metrics": {"test/wer": wer, "test/cer": cer, "test/loss": 1.2, "val/wer": min(curve), "train/clipped": 0.31},
        "parameters": 3_214_567,
        "seconds": {"train": 20 * pace, "total": 21 * pace},
        "audio_seconds_per_second": 412.5 / pace,
        "peak_memory_mb": 812.0,
        "steps": 2000,
        "epochs": 20,
        "best": {"epoch": 18, "step": 1800, "val/wer": min(curve)},
        "environment": {"python": "3.11.8", "torch": "2.11.0", "cpu": "x86_64", "host": "lab", "device": "cpu"},
        "git": {"commit": "0123abc", "dirty": False},
        "data": {"digest": {"train": "aaaa", "test": "bbbb"}},
        "finished": "2026-01-01T12:00:00",
        **over,
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    jsonl(folder / "hyps.test.jsonl", rows)
    rows = [{"step": 100 * e, "epoch": e, "seconds": pace * e, "val/wer": w} for e, w in enumerate(curve)]
    jsonl(folder / "metrics.jsonl", [{"step": 50, "epoch": 0, "seconds": 1.0, "train/loss": float("nan")}, *rows])
    return result


def jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def write_plan(
    folder: Path, cells: dict[str, dict], fingerprint: str = "", question: str = "", command: str = ""
) -> None:
    axes: dict[str, list] = {}
    for factors in cells.values():
        for k, v in factors.items():
            axes.setdefault(k, [])
            axes[k] += [] if v in axes[k] else [v]
    plan = {
        "experiment": folder.name,
        "question": question or "Which clipping suits which encoder?",
        "command": command or "asr-lab sweep clipping --seeds 1,2",
        "axes": axes,
        "cells": [
            {"name": k, "fingerprint": fingerprint, "factors": {"decoder": "ctc", **v}} for k, v in cells.items()
        ],
        "time": "2026-01-01T10:00:00",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(plan))


RATES = {
    ("bilstm", "none"): 0.24,
    ("bilstm", "norm"): 0.19,
    ("bilstm", "adaptive"): 0.2,
    ("conformer", "none"): 0.31,
    ("conformer", "norm"): 0.135,
    ("conformer", "adaptive"): 0.14,
}


@pytest.fixture(scope="session")
def grid(tmp_path_factory) -> Path:
    return write_grid(tmp_path_factory.mktemp("outputs") / "clipping", n=60)


def write_grid(folder: Path, n: int, speakers: int = 4) -> Path:
    """2 encoders x 3 clippings x 2 seeds; one cell failed, one is missing, one run is not in the plan."""
    cells = {f"{e}-{c}-{s}": {"encoder": e, "clipping": c, "seed": s} for (e, c) in RATES for s in (1, 2)}
    write_plan(folder, cells)
    for name, factors in cells.items():
        rate = RATES[factors["encoder"], factors["clipping"]] + 0.01 * factors["seed"]
        if name == "conformer-none-2":
            write_cell(
                folder / name, factors, rate, n=3, status="exploded", reason="loss was nan for 20 steps", metrics={}
            )
        elif name != "bilstm-adaptive-2":
            write_cell(folder / name, factors, rate, n=n, speakers=speakers)
    write_cell(folder / "by-hand", {"encoder": "gru", "clipping": "none", "seed": 9}, 0.01, n=n)
    return folder


# --- the numbers -------------------------------------------------------------------------------------------------

TEXT = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)


@settings(max_examples=50, deadline=None, database=None)
@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), min_size=1, max_size=8))
def test_corpus_wer_is_jiwers(pairs):
    rows = [row(i, ref, hyp, "s") for i, (ref, hyp) in enumerate(pairs)]
    edits = [r["sub"] + r["del"] + r["ins"] for r in rows]
    expected = jiwer.wer([r for r, _ in pairs], [h for _, h in pairs])
    assert stats.error_rate(edits, [r["words"] for r in rows]) == pytest.approx(expected)


@settings(max_examples=50, deadline=None, database=None)
@given(TEXT, TEXT)
def test_alignment_spells_both_texts_and_counts_the_edits(ref, hyp):
    pairs = align(ref, hyp)
    assert " ".join(p.ref for p in pairs if p.ref) == ref
    assert " ".join(p.hyp for p in pairs if p.hyp) == hyp
    counts = jiwer.process_words([ref], [hyp])
    marks = "".join(p.mark for p in pairs)
    assert [marks.count(m) for m in "SDI"] == [counts.substitutions, counts.deletions, counts.insertions]
    assert len(columns(pairs).split("\n")) == 3


def test_confusions_are_counted_over_the_corpus():
    found = confusions([("go left", "go right"), ("left", "right"), ("up", "")])
    assert found[0] == (("S", "left", "right"), 2)
    assert found[1] == (("D", "up", ""), 1)


def test_corpus_rate_is_not_the_mean_of_utterance_rates():
    assert stats.error_rate([1, 0], [1, 9]) == pytest.approx(0.1)


def test_bootstrap_interval_of_single_words_is_the_binomial_one():
    n, wrong = 400, 80
    errors = np.r_[np.ones(wrong), np.zeros(n - wrong)]
    found = stats.interval(0.2, stats.bootstrap(errors, np.ones(n), 20_000)[0])
    expected = binom.ppf([0.025, 0.975], n, wrong / n) / n  # a resample of 0/1 words is a binomial draw
    assert [found.low, found.high] == pytest.approx(expected, abs=1.5 / n)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hits, n = np.random.default_rng(0), 0, 80
    for trial in range(200):
        difficulty = rng.beta(1.2, 6, n)  # mean 1/6
        words = rng.integers(2, 13, n)
        seeds = np.clip(difficulty * (1 + 0.1 * rng.standard_normal((3, 1))), 0, 1)
        found = stats.compare([rng.binomial(words, seeds)], words, n_resamples=400, seed=trial)[0].rate
        hits += found.includes(1 / 6)
    assert 0.90 <= hits / 200 <= 1.0


def test_seeds_widen_the_interval():
    words, edits = np.full(100, 10), np.random.default_rng(0).poisson(2, 100)
    one = stats.compare([edits], words)[0].rate
    same = stats.compare([[edits, edits]], words)[0].rate
    apart = stats.compare([[edits, edits + 1]], words)[0].rate
    assert same[1:] == pytest.approx(one[1:])  # two seeds that agree say what one says
    assert apart.high - apart.low > 1.5 * (one.high - one.low)


def test_blocks_of_speakers_widen_the_interval_when_errors_follow_speakers():
    speakers = [f"s{i // 10}" for i in range(200)]
    words, edits = np.full(200, 10), np.repeat(np.random.default_rng(0).integers(0, 6, 20), 10)
    assert stats.sum_blocks(edits, speakers).sum() == edits.sum()
    alone, blocks = (stats.compare([edits], words, blocks=b)[0].rate for b in (None, speakers))
    assert alone.value == blocks.value
    assert blocks.high - blocks.low > 2 * (alone.high - alone.low)


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    words, edits = np.full(200, 10), rng.integers(0, 8, 200)
    better, worse = stats.compare([edits, edits + (rng.random(200) < 0.3)], words)
    assert better.best
    assert better.rate.high > worse.rate.low  # the intervals overlap widely ...
    assert not worse.tied  # ... and yet on the same utterances one is worse each time
    assert worse.delta.value == pytest.approx(worse.rate.value - better.rate.value)


def test_same_seed_same_numbers_and_chunks_do_not_matter(monkeypatch):
    edits, words = np.random.default_rng(0).poisson(1, (3, 50)), np.full(50, 8)
    first = stats.bootstrap(edits, words, 500, seed=3)
    assert np.array_equal(first, stats.bootstrap(edits, words, 500, seed=3))
    assert not np.array_equal(first, stats.bootstrap(edits, words, 500, seed=4))
    monkeypatch.setattr(resample, "_CHUNK", 1000)
    assert np.array_equal(first, stats.bootstrap(edits, words, 500, seed=3))


def test_edges_of_the_comparison():
    assert stats.compare([], []) == []
    silent = stats.compare([[0, 1]], [0, 0])[0]  # no reference word: no rate
    assert np.isnan(silent.rate.value)
    assert not silent.best
    single, other = stats.compare([[1], [2]], [4])  # one utterance: rates, but no interval, so nothing is worse
    assert single.rate.value == 0.25
    assert np.isnan([single.rate.low, other.delta.low]).all()
    assert single.best
    assert other.tied
    perfect, same = stats.compare([[0, 0, 0], [0, 0, 0]], [3, 3, 3])
    assert perfect.rate == (0, 0, 0)
    assert same.tied
    gaps = stats.compare([[1, 0, 0]], [1, 0, 0])[0].rate  # draws without a word are left out
    assert (gaps.low, gaps.high) == (1, 1)


# --- the files ---------------------------------------------------------------------------------------------------


def test_grid(grid):
    s = summarise(collect(grid))
    assert s.swept == ("encoder", "clipping")
    assert s.fixed == {"decoder": "ctc"}
    assert len(s.configurations) == 6
    assert s.best is not None
    assert s.best.factors["encoder"] == "conformer"
    assert s.best.wer.low < s.best.wer.value < s.best.wer.high
    assert s.best.label in s.answer
    assert percent(s.best.wer.value) in s.answer
    assert s.standing == (
        "Not finished: 1 of 12 cells is still to come (1 missing). 1 has ended without a result (1 exploded)."
    )
    tied = [r for r in s.configurations if r.tied]
    assert tied and all(r.p > 0.05 and r.short in s.answer for r in tied)
    assert {(f[0], f[1]) for f in s.failures} == {("bilstm-adaptive-2", "missing"), ("conformer-none-2", "exploded")}
    assert [c.name for c in s.unplanned] == ["by-hand"]
    assert all(c.name != "by-hand" for r in s.configurations for c in r.cells)  # the lowest WER of all, not in the plan


def test_every_page_shows_what_did_not_finish(grid):
    files = render(grid)
    names = {"report.md", "results.csv", "report.html", "table.tex", "methods.tex", "references.bib"}
    assert {p.name for p in files.values()} == names
    console = Console(width=200, file=StringIO(), record=True)
    console.print(table(grid))
    pages = [files[k].read_text() for k in ("md", "csv", "html")] + [console.export_text()]
    for page in pages:
        assert "missing" in page
        assert "exploded" in page
        assert "loss was nan for 20 steps" in page
    for page in (files["md"].read_text(), files["html"].read_text()):
        assert "Which clipping suits which encoder?" in page
        assert "asr-lab sweep clipping --seeds 1,2" in page
        assert "10,000 resamples" in page


def test_same_folder_same_bytes(grid):
    before = {k: p.read_bytes() for k, p in render(grid).items()}
    assert before == {k: p.read_bytes() for k, p in render(grid).items()}


def test_csv_round_trip(grid):
    rows = list(csv.DictReader(render(grid)["csv"].open(newline="")))
    assert len(rows) == 13
    by_name = {r["cell"]: r for r in rows}
    assert by_name["bilstm-adaptive-2"]["status"] == "missing"
    assert by_name["bilstm-adaptive-2"]["test/wer"] == ""
    assert by_name["by-hand"]["planned"] == "False"
    for r in rows:
        if r["status"] == "done":
            result = json.loads((grid / r["cell"] / "result.json").read_text())
            assert float(r["test/wer"]) == result["metrics"]["test/wer"]
            assert float(r["counted/wer"]) == pytest.approx(float(r["test/wer"]))
            assert int(r["counted/sub"]) + int(r["counted/del"]) + int(r["counted/ins"]) > 0
            assert (r["encoder"], r["seed"]) == (result["factors"]["encoder"], str(result["factors"]["seed"]))


def test_without_a_plan_the_cells_speak_for_themselves(tmp_path):
    for e in ("a", "b"):
        write_cell(tmp_path / "x" / e, {"encoder": e, "seed": 1}, 0.2)
    s = summarise(collect(tmp_path / "x"))
    assert s.swept == ("encoder",)
    assert len(s.configurations) == 2
    assert s.unplanned == ()
    assert s.experiment.name == "x"


def test_what_follows_from_a_choice_is_no_factor_beside_it(tmp_path):
    inside = {
        "bilstm": {"encoder/subsampling": "stack"},
        "conformer": {"encoder/subsampling": "depthwise4", "encoder/a": "b"},
    }
    for encoder, choices in inside.items():
        for clipping in ("none", "norm"):
            factors = {"encoder": encoder, "clipping": clipping, "seed": 1, **choices}
            write_cell(tmp_path / "x" / f"{encoder}-{clipping}", factors, 0.2)
    s = summarise(collect(tmp_path / "x"))
    assert set(s.swept) == {"clipping", "encoder"}
    assert s.fixed == {"decoder": "ctc"}
    other = {"encoder": "conformer", "clipping": "norm", "seed": 1, "encoder/subsampling": "conv2d4"}
    write_cell(tmp_path / "x" / "other", other, 0.2)
    assert "encoder/subsampling" in summarise(collect(tmp_path / "x")).swept


class TestAValueThatSomeCellsOverride:
    """It is in their factors alone; the others' is in their own config.yaml."""

    @pytest.fixture
    def folder(self, tmp_path):
        cells = {}
        for seed in (1, 2):
            for name, over, clipping, share in (
                ("off", {"clipping": "none"}, "{}", 0.0),
                ("plain", {"clipping": "norm"}, "{threshold: 1.0, p: 2}", 0.9),
                ("five", {"clipping": "norm", "clipping.threshold": 5.0}, "{threshold: 5.0, p: 2}", 0.04),
            ):
                cells[f"{name}{seed}"] = {**over, "seed": seed}
                if (name, seed) != ("plain", 2):  # that one never started
                    metrics = {"test/wer": 0.2, "train/clipped": share}
                    cell = tmp_path / f"{name}{seed}"
                    write_cell(cell, cells[cell.name], 0.2, metrics=metrics, gradients={"kept": 1 - share / 2})
                    (cell / "config.yaml").write_text(f"clipping: {clipping}\n")
        write_plan(tmp_path, cells)
        return tmp_path

    def test_it_is_a_factor_of_all_that_have_it(self, folder):
        rows = summarise(collect(folder)).configurations
        values = {r.factors["clipping.threshold"]: [c.name for c in r.cells] for r in rows}
        assert values == {"–": ["off1", "off2"], "1.0": ["plain1", "plain2"], "5.0": ["five1", "five2"]}
        off = next(r for r in rows if r.cells[0].name == "off1")
        assert off.label == "clipping=none" and off.short == "none"

    def test_what_clipping_was_is_said(self, folder):
        rows = {r.cells[0].name: r for r in summarise(collect(folder)).configurations}
        was = {name: row.clipping_was for name, row in rows.items()}
        assert was == {"off1": "", "plain1": "limiter", "five1": "safety net"}
        assert rows["plain1"].columns["gradients/kept"].mean == pytest.approx(0.55)
        written = render(folder)
        assert "90.0 (limiter)" in written["md"].read_text() and "4.0 (safety net)" in written["md"].read_text()
        assert "<small>limiter</small>" in written["html"].read_text()

    @pytest.mark.parametrize("text", ["", "[1]", "clipping: [", "clipping: 3", "clipping: {threshold: 2001-01-01}"])
    def test_whatever_stands_there(self, folder, text):
        for file in folder.glob("plain*/config.yaml"):
            file.write_text(text)
        rows = summarise(collect(folder)).configurations
        [row] = [r for r in rows if "plain1" in [c.name for c in r.cells]]
        assert row.factors["clipping.threshold"] in ("–", '"2001-01-01"')


def test_one_seed_is_said(tmp_path):
    for e in ("a", "b"):
        write_cell(tmp_path / "x" / e, {"encoder": e, "seed": 1}, 0.2)
    pages = render(tmp_path / "x")
    for kind in ("md", "html"):
        assert "one seed: the interval covers utterances only" in pages[kind].read_text()


def test_only_one_configuration(tmp_path):
    for seed in (1, 2):
        write_cell(tmp_path / "x" / str(seed), {"seed": seed}, 0.2)
    s = summarise(collect(tmp_path / "x"))
    assert [r.label for r in s.configurations] == ["the only configuration"]
    assert "mean of 2 seeds" in s.answer
    render(tmp_path / "x")


DAMAGE = {
    "result.json": [
        '{"status": "done", "met',
        "[1, 2]",
        "",
        '{"status": "great"}',
        '{"metrics": {"test/wer": 0.1}}',
        "\xff",
    ],
    "hyps.test.jsonl": [
        '{"id": "u1", "sub": 0, "del": 0, "ins": 0, "words": 1}\n{"id": "u2", "su',
        "",
        "5\n",
        '{"id": "u1"}\n',
        '{"id": "u1", "sub": NaN, "del": 0, "ins": 0, "words": 1}\n',
        '{"id": "u1", "sub": "1", "del": 0, "ins": 0, "words": 1}\n',
        '{"id": "u1", "sub": Infinity, "del": 0, "ins": 0, "words": 1}\n',
        '{"id": "u1", "sub": 0, "del": 0, "ins": 0, "words": 1}\n' * 2,
    ],
    "metrics.jsonl": [
        '{"step": 1, "epoch": 0, "val/wer": 0.5}\n{"step": 2, "ep',
        "nonsense\n{}\n",
        "[1]\n",
        "[" * 20_000 + "\n{}\n",
    ],
    "sweep.json": ['{"cells": [', "3", '{"cells": [{"name": "../elsewhere"}]}', '{"cells": [7]}'],
}


@pytest.mark.parametrize(
    ("name", "text"),
    [pytest.param(name, text, id=f"{name}-{i}") for name, texts in DAMAGE.items() for i, text in enumerate(texts)],
)
def test_damage_is_named_and_never_fatal(tmp_path, name, text):
    folder = tmp_path / "x"
    for e in ("a", "b"):
        write_cell(folder / e, {"encoder": e, "seed": 1}, 0.2, n=10)
    path = folder / name if name == "sweep.json" else folder / "b" / name
    path.write_bytes(text.encode("latin-1"))
    s = summarise(collect(folder))
    assert any(name in reason or name == "sweep.json" for _, _, _, reason in s.failures)
    assert any(cell in ("b", "(experiment)") for cell, *_ in s.failures)
    assert any(c.name == "a" and c.done for c in s.experiment.cells)
    assert str(tmp_path) not in render(folder)["md"].read_text()  # names, not where somebody's disk is


def test_hypotheses_missing_leave_a_number_without_an_interval(tmp_path):
    for e, rate in (("a", 0.3), ("b", 0.2)):
        write_cell(tmp_path / "x" / e, {"encoder": e, "seed": 1}, rate)
    (tmp_path / "x" / "b" / "hyps.test.jsonl").unlink()
    s = summarise(collect(tmp_path / "x"))
    b = next(r for r in s.configurations if r.factors["encoder"] == "b")
    assert np.isfinite(b.wer.value)
    assert np.isnan(b.wer.low)
    assert s.best is not b  # lower, but nothing says how sure that is
    assert any("encoder=b" in w for w in s.warnings)
    assert "no interval" in render(tmp_path / "x")["html"].read_text()
    (tmp_path / "x" / "a" / "hyps.test.jsonl").unlink()
    assert "nothing says how sure" in summarise(collect(tmp_path / "x")).answer
    render(tmp_path / "x")


def test_older_layout_renders(tmp_path):
    write_cell(tmp_path / "x" / "old", {"seed": 1}, 0.2)
    (tmp_path / "x" / "old" / "result.json").write_text(
        '{"status": "done", "metrics": {"test/wer": 0.2, "test/cer": NaN}}'
    )
    jsonl(tmp_path / "x" / "old" / "hyps.test.jsonl", [{"id": 3, "sub": 1, "del": 0, "ins": 0, "words": 4}])
    (tmp_path / "x" / "old" / "metrics.jsonl").unlink()
    page = render(tmp_path / "x")["html"].read_text()
    assert "25.0" in page
    assert "no interval" in page  # one utterance


def test_numbers_that_are_no_numbers_do_not_count_as_done(tmp_path):
    write_cell(tmp_path / "x" / "a", {"encoder": "a", "seed": 1}, 0.2)
    write_cell(tmp_path / "x" / "b", {"encoder": "b", "seed": 1}, 0.2, metrics={"test/wer": float("nan")})
    (tmp_path / "x" / "b" / "hyps.test.jsonl").unlink()
    cells = {c.name: c.status for c in collect(tmp_path / "x").cells}
    assert cells == {"a": "done", "b": "damaged"}


def test_a_result_of_another_configuration_is_stale(tmp_path):
    cells = {e: {"encoder": e, "seed": 1} for e in ("a", "b")}
    write_plan(tmp_path / "x", cells, fingerprint="1" * 16)
    for name, factors in cells.items():
        write_cell(tmp_path / "x" / name, factors, 0.2, fingerprint=("1" if name == "a" else "2") * 16)
    assert [c.status for c in collect(tmp_path / "x").cells] == ["done", "stale"]


def test_different_test_sets_are_warned_of_and_not_compared(tmp_path):
    for i, e in enumerate("abc"):
        over = {"data": {"digest": {"test": "other"}}} if e == "c" else {}
        write_cell(tmp_path / "x" / e, {"encoder": e, "seed": 1}, 0.3 - 0.1 * i, **over)
    s = summarise(collect(tmp_path / "x"))
    assert any("different test data" in w for w in s.warnings)
    c = next(r for r in s.configurations if r.factors["encoder"] == "c")
    assert not c.comparable
    assert not c.best
    assert np.isfinite(c.wer.low)  # an interval of its own
    assert s.best is not None
    assert s.best.factors["encoder"] == "b"


def test_a_rate_that_contradicts_the_hypotheses_is_warned_of(tmp_path):
    write_cell(tmp_path / "x" / "a", {"seed": 1}, 0.2, metrics={"test/wer": 0.01})
    s = summarise(collect(tmp_path / "x"))
    assert any("not the one counted" in w for w in s.warnings)
    assert s.configurations[0].wer.value > 0.05


def test_nothing_to_report_is_one_clear_line(tmp_path):
    write_cell(tmp_path / "clipping" / "a", {"seed": 1}, 0.2, status="failed", reason="CUDA out of memory")
    with pytest.raises(AsrLabError, match=r"no finished cell.*1 failed.*CUDA out of memory"):
        render(tmp_path / "clipping")
    with pytest.raises(AsrLabError, match=r"no such folder; did you mean 'clipping'"):
        collect(tmp_path / "cliping")
    with pytest.raises(AsrLabError, match=r"no such folder$"):
        collect(tmp_path / "nowhere" / "at" / "all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AsrLabError, match="holds no cell"):
        table(tmp_path / "empty")


# --- the score ---------------------------------------------------------------------------------------------------

HAN = "一二三四五六七八九十"


def write_han(folder: Path, factors: dict, wrong: int, **over) -> None:
    """A finished cell of a script without spaces: 20 utterances of ten characters, `wrong` of them recognised as 千 in
    every utterance, so that CER is wrong / 10 and WER, where an utterance is one word, 100 %."""
    write_cell(folder, factors, 0.2, score="cer", **over)
    rows = [
        {"id": f"u{i}", "ref": HAN, "hyp": "千" * wrong + HAN[wrong:], "sub": 1, "del": 0, "ins": 0, "words": 1}
        | {"char_errors": wrong, "chars": 10, "speaker": f"s{i % 3}"}
        for i in range(20)
    ]
    jsonl(folder / "hyps.test.jsonl", rows)
    metrics = {"test/wer": 1.0, "test/cer": wrong / 10, "val/wer": 0.99, "val/cer": 0.01 * wrong}
    result = json.loads((folder / "result.json").read_text()) | {"metrics": metrics, "best": {"epoch": 1}}
    (folder / "result.json").write_text(json.dumps(result))
    jsonl(folder / "metrics.jsonl", [{"epoch": e, "seconds": e, "val/wer": 1.0, "val/cer": 0.5 / e} for e in (1, 2, 3)])


def test_cer_ranks_where_it_is_the_score(tmp_path):
    for encoder, wrong in (("a", 3), ("b", 2)):
        write_han(tmp_path / "x" / encoder, {"encoder": encoder, "seed": 1}, wrong)
    s = summarise(collect(tmp_path / "x"))
    assert s.score == "cer"
    assert s.best is not None
    assert s.best.factors["encoder"] == "b"
    assert (s.best.rate.value, s.best.other.value) == (pytest.approx(0.2), 1.0)
    assert s.configurations[1].delta.value == pytest.approx(0.1)
    assert "20.0 % test CER" in s.answer
    assert not any("scores" in w for w in s.warnings)
    pages = {k: p.read_text() for k, p in render(tmp_path / "x").items()}
    for page in (pages["md"], pages["html"]):
        assert "Test CER by configuration" in page
        assert "Test WER" not in page
        assert "best val CER %" in page
        assert "of 10 characters" in page
        assert "20.0 / 0.0 / 0.0" in page  # substitutions, deletions, insertions of characters
    assert 'aria-label="Validation CER against epoch"' in pages["html"]
    rows = list(csv.DictReader(StringIO(pages["csv"])))
    assert [(r["score"], r["counted/char_errors"], r["counted/chars"], r["counted/cer"]) for r in rows] == [
        ("cer", "60", "200", "0.3"),
        ("cer", "40", "200", "0.2"),
    ]
    console = Console(width=200, file=StringIO(), record=True)
    console.print(table(tmp_path / "x"))
    assert "test CER % (95 %)" in console.export_text()


def test_cells_that_disagree_in_score_are_warned_of(tmp_path):
    for encoder in "ab":
        write_cell(tmp_path / "x" / encoder, {"encoder": encoder, "seed": 1}, 0.2)
    write_han(tmp_path / "x" / "c", {"encoder": "c", "seed": 1}, 1)
    s = summarise(collect(tmp_path / "x"))
    assert s.score == "wer"
    assert [w for w in s.warnings if "different scores, so wer" in w and "cer: c" in w]
    write_han(tmp_path / "x" / "d", {"encoder": "d", "seed": 1}, 1)
    assert summarise(collect(tmp_path / "x")).score == "wer"  # as many of each
    write_han(tmp_path / "x" / "e", {"encoder": "e", "seed": 1}, 1)
    assert summarise(collect(tmp_path / "x")).score == "cer"


def test_cer_without_hypotheses_is_that_of_the_result(tmp_path):
    for encoder, wrong in (("a", 3), ("b", 2)):
        write_han(tmp_path / "x" / encoder, {"encoder": encoder, "seed": 1}, wrong)
        (tmp_path / "x" / encoder / "hyps.test.jsonl").unlink()
    s = summarise(collect(tmp_path / "x"))
    assert s.configurations[0].rate.value == pytest.approx(0.2)
    assert "lowest test CER, 20.0 %" in s.answer
    render(tmp_path / "x")


# --- the pages ---------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """Every element and every attribute of a page; complains of elements that are not closed in order."""

    def __init__(self, page: str):
        super().__init__()
        self.names, self.attributes, self.open = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "hostile"
    names = {HOSTILE: "a", "=cmd|' /C calc'!A0": "b", '"><img src=x onerror=alert(1)>': "c", "\ud800 | `x` **y**": "d"}
    cells = {cell: {"encoder": name, "seed": 1} for name, cell in names.items()}
    write_plan(folder, cells, question=HOSTILE, command="asr-lab sweep x\n```\n" + HOSTILE)
    for cell, factors in cells.items():
        write_cell(
            folder / cell, factors, 0.3, hyp=f"{HOSTILE} https://evil.example " + "x " * 30, git={"commit": HOSTILE}
        )
    write_cell(folder / "+1", {"encoder": HOSTILE, "seed": 2}, 0.3, status="failed", reason=f"{HOSTILE}\n| a | b |")
    return folder


def test_hostile_text_stays_text(hostile):
    pages = {k: p.read_text() for k, p in render(hostile).items()}
    tags = Tags(pages["html"])
    assert tags.names.count("script") == pages["html"].count("<script") == 1 and SCRIPT in pages["html"]
    assert "img" not in tags.names
    assert not any(name.startswith("on") for name, _ in tags.attributes)
    assert "&lt;script&gt;" in pages["html"]
    outside_code = "\n".join(line for line in pages["md"].split("\n") if not line.startswith("    "))
    assert "<script>" not in outside_code.replace("\\<", "")
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in outside_code.split("\n") if line.startswith("| ")}
    assert len(widths) <= 3  # the main table, costs and the cells: no value opened a column


def test_csv_holds_no_formula(hostile):
    with render(hostile)["csv"].open(newline="") as f:
        values = [v for r in csv.reader(f) for v in r]
    assert "'=cmd|' /C calc'!A0" in values
    assert not any(v[:1] in ("=", "@", "\t", "\r") for v in values)
    assert all(v[:1] not in ("+", "-") or re.fullmatch(r"[+-][\d.e+-]+|-inf", v) for v in values)


@pytest.mark.parametrize("folder", ["grid", "hostile"])
def test_html_needs_nothing_from_outside(folder, request):
    page = render(request.getfixturevalue(folder))["html"].read_text()
    links = [v for name, v in Tags(page).attributes if name in ("src", "href", "srcset", "action", "data", "poster")]
    outside = [link for link in links if not link.startswith("#")]
    assert sorted(outside) == ["methods.tex", "references.bib", "results.csv", "table.tex"]
    assert not re.search(r"@import|url\(", page)
    if folder == "grid":
        assert set(re.findall(r"https?://[^\s<{}]+", page)) == {"https://github.com/asr-lab/asr_lab"}  # in BibTeX
        assert page.count('class="curve c') == page.count('class="band c') == 2 * 6
        keys = page.count('class="key"')
        assert page.count("<svg") - keys == page.count('role="img" aria-label="') > 3


def test_report_imports_no_torch():
    code = (
        "import sys, asr_lab.report.render as r; "
        "sys.exit(', '.join({'torch', 'hydra', 'lightning', 'pytorch_lightning', 'omegaconf'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_ticks_are_round_and_reach_both_ends():
    for low, high in [(0, 1), (12.3, 12.4), (5, 5), (0, 0), (0, 31_536_000), (-3, 4)]:
        marks = ticks(low, high)
        assert marks[0] <= low
        assert marks[-1] >= high
        assert 2 <= len(marks) <= 9


def test_line_chart_survives_a_point_and_many_lines():
    assert line_chart([], "t", "x", "y") == ""
    point = Line("a", [1.0], [0.5], [0.5], [0.5])
    assert "nan" not in line_chart([point], "t", "x", "y")
    Tags(line_chart([point._replace(label=f"{i}<") for i in range(40)], "t", "x", "y"))


def test_numbers_are_written_for_people():
    assert (percent(0.1234), percent(float("nan")), percent(-0.012, signed=True)) == ("12.3", "–", "−1.2")
    assert (seconds(45), seconds(700), seconds(12_000)) == ("45 s", "11.7 min", "3.3 h")
    assert [short(x) for x in (3_214_567, 812, 1.234, 34, 25_000, 2000)] == [
        "3.21 M",
        "812",
        "1.23",
        "34.0",
        "25.0 k",
        "2000",
    ]
    assert span(Spread(300, 240, 360), seconds) == "4.0 – 6.0 min"
    assert span(Spread(90, 60, 150), seconds) == "60 s – 2.5 min"
    assert span(Spread(1, 1, 1), short) == ""


def test_a_cell_that_waits_is_no_damaged_one(tmp_path):
    cells = {f"c{seed}": {"encoder": "gru", "seed": seed} for seed in (1, 2)}
    write_plan(tmp_path, cells)
    write_cell(tmp_path / "c1", cells["c1"], 0.2)
    write_cell(tmp_path / "c2", cells["c2"], 0.2, status="planned", metrics={})
    assert [c.status for c in collect(tmp_path).cells] == ["done", "planned"]
    assert "damaged" not in render(tmp_path)["md"].read_text()
