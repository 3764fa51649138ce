"""What a report says of experiments that are not finished, partly failed, or cannot be compared."""

import json
import os
import shutil

import pytest

from asr_lab.hold import hold
from asr_lab.report.collect import collect
from asr_lab.report.failures import failures, standing
from asr_lab.report.render import render
from asr_lab.report.summary import summarise

from .test_report import jsonl, references, row, write_cell, write_plan


def one_of_each(tmp_path, **states):
    """A finished cell and one for each of `states`: what result.json is to say."""
    cells = {"done": {"encoder": "done", "seed": 1}} | {name: {"encoder": name, "seed": 1} for name in states}
    write_cell(tmp_path / "done", cells["done"], 0.2, n=30)
    for name, over in states.items():
        write_cell(tmp_path / name, cells[name], 0.3, n=3, metrics={}, **over)
        (tmp_path / name / "hyps.test.jsonl").unlink()
    write_plan(tmp_path, cells)
    return tmp_path


def test_all_done_stands_for_itself(tmp_path):
    folder = one_of_each(tmp_path)
    assert standing(collect(folder)) == ""
    assert "Not finished" not in render(folder)["html"].read_text()


def test_each_state_is_counted_with_how_far_it_came(tmp_path):
    pruned = {"status": "cancelled", "reason": "pruned after epoch 3: val/wer 0.61"}
    folder = one_of_each(
        tmp_path,
        exploded={"status": "exploded", "reason": "20 steps without a number"},
        pruned=pruned,
        halved={"status": "cancelled", "reason": "halved at epoch 2: val/wer 0.7 is not among the best"},
        stopped={"status": "cancelled", "reason": "by hand"},
        waiting={"status": "planned", "reason": None},
    )
    jsonl(folder / "pruned" / "metrics.jsonl", [{"epoch": e, "val/wer": w} for e, w in enumerate((0.9, 0.61, 0.7))])
    (folder / "stopped" / "metrics.jsonl").unlink()
    found = {f.name: f for f in failures(collect(folder))}
    assert {name: f.what for name, f in found.items()} == {
        "exploded": "exploded",
        "pruned": "pruned",
        "halved": "pruned",
        "stopped": "cancelled",
        "waiting": "planned",
    }
    assert found["pruned"].reached == "epoch 2, best val WER 61.0 %" and found["stopped"].reached == ""
    said = standing(collect(folder))
    assert said == (
        "Not finished: 1 of 6 cells is still to come (1 planned). "
        "4 have ended without a result (1 exploded, 2 pruned, 1 cancelled)."
    )
    for page in (render(folder)["html"].read_text(), render(folder)["md"].read_text()):
        assert said in page and "pruned after epoch 3" in page and "best val WER 61.0 %" in page
    assert "unknown (censored)" in render(folder)["html"].read_text()


def test_a_cell_whose_process_is_gone_was_preempted(tmp_path):
    folder = one_of_each(tmp_path, dead={"status": "running"}, alive={"status": "running"})
    (folder / "dead" / ".lock").write_text(f"pid 1 on {os.uname().nodename} started 0\n")
    with hold(folder / "alive"):
        cells = {c.name: c for c in collect(folder).cells}
        assert cells["alive"].status == "running"
    assert cells["dead"].status == "preempted" and "process is gone" in cells["dead"].reason


def test_a_cell_that_was_told_not_to_start_is_cancelled(tmp_path):
    folder = one_of_each(tmp_path, told={"status": "planned"})
    (folder / "told" / ".cancelled").write_text("")
    assert {c.name: c.status for c in collect(folder).cells}["told"] == "cancelled"


def test_torn_curves_of_cells_that_died_are_no_damage(tmp_path):
    folder = one_of_each(tmp_path, failed={"status": "failed", "reason": "killed"})
    (folder / "failed" / "metrics.jsonl").write_text('{"epoch": 0, "val/wer": 0.9}\n{"epoch": 1, "va')
    [found] = failures(collect(folder))
    assert found.reached == "epoch 0, best val WER 90.0 %"


def test_other_references_are_another_test_and_the_normaliser_is_named(tmp_path):
    for name, normalizer in (("a", "basic"), ("b", "basic"), ("c", "none")):
        write_cell(tmp_path / name, {"encoder": name, "data/normalizer": normalizer, "seed": 1}, 0.2, n=30)
    rows = [row(i, ref.upper(), ref.upper(), f"spk{i % 4}") for i, ref in enumerate(references(30))]
    jsonl(tmp_path / "c" / "hyps.test.jsonl", rows)
    s = summarise(collect(tmp_path))
    apart = [r for r in s.configurations if r.done and not r.comparable]
    assert [r.factors["encoder"] for r in apart] == ["c"] and not apart[0].best and apart[0].rate.value == 0
    [warning] = [w for w in s.warnings if w.startswith("Not compared")]
    assert "encoder=c" in warning and "30 references differ" in warning
    assert "data/normalizer none and basic" in warning
    assert "not compared" in render(tmp_path)["html"].read_text()


def test_another_test_set_is_named_with_what_is_shared(tmp_path):
    for name, n in (("a", 30), ("b", 30), ("c", 20)):
        write_cell(tmp_path / name, {"encoder": name, "seed": 1}, 0.2, n=n)
    [warning] = [w for w in summarise(collect(tmp_path)).warnings if w.startswith("Not compared")]
    assert "another test set (20 and 30 utterances, 20 of them in both ('utt" in warning


def test_identical_runs_are_pointed_at(tmp_path):
    cells = {f"{t}": {"clipping.threshold": t, "seed": 1} for t in (10.0, 30.0, 1.0)}
    for name, factors in cells.items():
        write_cell(tmp_path / name, factors, 0.3, n=30)
    shutil.copy(tmp_path / "10.0" / "hyps.test.jsonl", tmp_path / "30.0" / "hyps.test.jsonl")
    write_plan(tmp_path, cells)
    s = summarise(collect(tmp_path))
    [warning] = [w for w in s.warnings if "exactly the same hypotheses" in w]
    assert "10.0 = 30.0" in warning and "1.0 =" not in warning.replace("10.0 =", "")
    assert all(r.tied for r in s.configurations if r.factors["clipping.threshold"] in ("10.0", "30.0") and not r.best)


def test_seeds_that_differ_in_more_than_the_seed_are_no_repeats(tmp_path):
    for seed, lr in ((1, 0.1), (2, 0.2)):
        for encoder in "ab":
            cell = tmp_path / f"{encoder}{seed}"
            write_cell(cell, {"encoder": encoder, "seed": seed}, 0.2, n=30)
            rate = lr if encoder == "a" else 0.1
            (cell / "config.yaml").write_text(
                f"seed: {seed}\nencoder: {{_target_: {encoder}}}\noptimizer: {{lr: {rate}}}\n"
            )
    s = summarise(collect(tmp_path))
    [warning] = [w for w in s.warnings if "no repeats" in w]
    assert "encoder=a" in warning and "optimizer.lr" in warning
    page = render(tmp_path)["html"].read_text()
    section = page.partition('<h2 id="differences">')[2].partition("</section>")[0]
    assert "may be what made the difference" in section
    assert section.index("No swept factor: 1 value") < section.index("encoder: 1 value")
    assert "0.1 (3); 0.2 (1)" in section


def test_one_seed_has_no_interval_over_seeds_and_no_power_over_them(tmp_path):
    for e, rate in (("a", 0.1), ("b", 0.4)):
        write_cell(tmp_path / e, {"encoder": e, "seed": 1}, rate, n=60)
    s = summarise(collect(tmp_path))
    assert s.power is not None and s.power.seeds == 1
    assert "What seeds do is not in this number" in render(tmp_path)["html"].read_text()
    assert any("another seed may order" in w for w in s.warnings)


def test_a_metric_that_is_absent_is_a_dash_or_no_column(tmp_path):
    for e in "ab":
        write_cell(tmp_path / e, {"encoder": e, "seed": 1}, 0.2, n=30, peak_memory_mb=None)
        result = json.loads((tmp_path / e / "result.json").read_text())
        if e == "a":
            del result["parameters"], result["seconds"]
        (tmp_path / e / "result.json").write_text(json.dumps(result))
    page = render(tmp_path)["html"].read_text()
    assert "memory MB" not in page and "parameters" in page
    assert 'data-label="parameters" class="n" data-sort="nan"><div>–</div>' in page


@pytest.mark.parametrize("n_exploded", [1, 6])
def test_exploded_cells_enter_the_analysis_as_the_worst_or_are_counted(tmp_path, n_exploded):
    cells = {f"{e}{c}{s}": {"encoder": e, "clipping": c, "seed": s} for e in "ab" for c in "xy" for s in range(1, 8)}
    for i, (name, factors) in enumerate(cells.items()):
        over = {"status": "exploded", "reason": "nan", "metrics": {}} if i < n_exploded else {}
        write_cell(tmp_path / name, factors, 0.2 if factors["encoder"] == "a" else 0.4, n=20, **over)
    write_plan(tmp_path, cells)
    found = summarise(collect(tmp_path)).factorial
    assert found is not None and found.ranks == (n_exploded == 6)
    assert [t.name for t in found.terms][:2] == ["encoder", "clipping"]
    assert sum(e.n_censored for e in found.effects["encoder"]) == n_exploded
    page = render(tmp_path)["html"].read_text()
    assert f"{n_exploded} exploded" in page and ("by rank, because cells exploded" in page) == found.ranks


def test_a_nested_number_is_one_factor_with_its_group(tmp_path):
    cells = {}
    for encoder in "ab":
        for clipping, threshold in (("none", None), ("norm", 1.0), ("norm", 5.0)):
            for seed in (1, 2):
                factors = {"encoder": encoder, "clipping": clipping, "seed": seed}
                factors |= {"clipping.threshold": threshold} if threshold else {}
                cells[f"{encoder}{clipping}{threshold}{seed}"] = factors
    for name, factors in cells.items():
        write_cell(tmp_path / name, factors, 0.2, n=20)
    write_plan(tmp_path, cells)
    found = summarise(collect(tmp_path)).factorial
    assert found is not None
    assert [t.name for t in found.terms][:2] == ["clipping", "encoder"] or [t.name for t in found.terms][:2] == [
        "encoder",
        "clipping",
    ]
    assert {e.level for e in found.effects["clipping"]} == {"none", "norm 1.0", "norm 5.0"}
