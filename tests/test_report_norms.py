"""Gradient norms in the report: from single steps where they were recorded, else from the epochs' means."""

import numpy as np
import pytest

from asr_lab.report import norms
from asr_lab.report.collect import collect
from asr_lab.report.render import render
from asr_lab.report.summary import summarise

from .test_report import Tags, jsonl, write_cell, write_plan


def record(path, steps, before, after):
    columns = np.array(("loss", "norm_before", "norm_after", "clipped", "skipped", "lr", "loss_scale"))
    values = np.zeros((len(steps), 7), np.float32)
    values[:, 1], values[:, 2] = before, after
    np.savez(path, columns=columns, steps=np.array(steps), values=values)


@pytest.fixture
def folder(tmp_path):
    """Two seeds whose norms are 4 and 16, clipped to 2 and 2; an exploded one; one with epochs' means only."""
    cells = {f"{c}{s}": {"clipping": c, "seed": s} for c in ("norm", "value", "bad") for s in (1, 2)}
    for name, factors in cells.items():
        over = {"status": "exploded", "reason": "nan", "metrics": {}} if name == "bad2" else {}
        write_cell(tmp_path / name, factors, 0.2, n=20, **over)
    for seed, norm in ((1, 4.0), (2, 16.0)):
        record(tmp_path / f"norm{seed}" / norms.FILE, range(400), np.full(400, norm), np.full(400, 2.0))
        before = np.where(np.arange(100) < 90, 1.0, np.inf)
        record(tmp_path / f"bad{seed}" / norms.FILE, range(100), before, np.minimum(before, 1.0))
        rows = [{"step": 10 * e, "epoch": e, "train/grad_norm": 3.0, "train/grad_norm_after": 1.5} for e in range(9)]
        jsonl(tmp_path / f"value{seed}" / "metrics.jsonl", rows)
    write_plan(tmp_path, cells)
    return tmp_path


def found(folder):
    rows = summarise(collect(folder)).configurations
    histories, left = norms.histories(folder, rows)
    assert left == 0
    return {h.label: h for h in histories}


def test_percentiles_of_all_seeds_in_each_stretch(folder):
    h = found(folder)["norm"]
    assert h.per_step and h.edges[0] == 0 and h.edges[-1] == 400
    assert np.allclose(h.before[:, 0], 4) and np.allclose(h.before[:, 2], 16) and np.allclose(h.after, 2)
    assert np.allclose(h.before[:, 1], 10)


def test_without_a_record_the_epochs_means_stand_in(folder):
    h = found(folder)["value"]
    there = np.isfinite(h.after)
    assert not h.per_step and there.sum() == 9
    assert np.allclose(h.before[there], 3) and np.allclose(h.after[there], 1.5)


def test_steps_without_a_finite_norm_and_explosions_are_said(folder):
    h = found(folder)["bad"]
    assert (h.nonfinite, h.exploded) == (20, 1)
    page = render(folder)["html"].read_text()
    assert "bad: 1 cell exploded; 20 recorded norms are zero or not finite" in page
    section = page.partition('<h2 id="norms">')[2].partition("</section>")[0]
    assert section.count("<svg") == 3 and "nan" not in section and "inf" not in section
    Tags(page)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 torn", b"\x93NUMPY"])
def test_a_torn_record_is_no_record(folder, data):
    (folder / "norm1" / norms.FILE).write_bytes(data)
    (folder / "norm2" / norms.FILE).unlink()
    assert set(found(folder)) == {"value", "bad"}


def test_the_first_ones_and_the_exploded_are_drawn(tmp_path):
    cells = {f"c{i:02}": {"encoder": f"e{i:02}", "seed": 1} for i in range(16)}
    for i, (name, factors) in enumerate(cells.items()):
        over = {"status": "exploded", "reason": "nan", "metrics": {}} if i == 15 else {}
        write_cell(tmp_path / name, factors, 0.1 + 0.02 * i, n=40, **over)
        record(tmp_path / name / norms.FILE, range(10), np.ones(10), np.ones(10))
    write_plan(tmp_path, cells)
    histories, left = norms.histories(tmp_path, summarise(collect(tmp_path)).configurations)
    assert len(histories) == norms.PANELS and left == 4
    assert histories[-1].label == "e15" and histories[-1].exploded == 1


def test_one_step_is_a_panel(tmp_path):
    write_cell(tmp_path / "a", {"encoder": "a", "seed": 1}, 0.2, n=10)
    record(tmp_path / "a" / norms.FILE, [7], np.array([2.0]), np.array([0.0]))
    [h] = norms.histories(tmp_path, summarise(collect(tmp_path)).configurations)[0]
    [panel] = norms.panels([h])
    assert "nan" not in panel.svg
    Tags(panel.svg)
