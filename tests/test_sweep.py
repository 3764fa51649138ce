"""A grid as a Hydra multirun: planned, frozen, run once, repeated without doing anything twice, failures told apart."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asr_lab.cli.hydra_errors import one_line
from asr_lab.cli.status import _axes
from asr_lab.files import read_jsonl

from .conftest import only_line, tiny

EXPERIMENT = """
# Question: a test's
defaults:
  - config
  - override encoder: bilstm
  - override logger: none
  - _self_
experiment: tiny
question: which clipping?
grid:
  clipping: [none, norm]
  seed: [1]
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory, tones):
    """A working directory in which the user's own experiment was run; (folder, arguments, first process)."""
    here = tmp_path_factory.mktemp("sweep")
    (here / "experiments").mkdir()
    (here / "experiments" / "tiny.yaml").write_text(EXPERIMENT)
    overrides = [o for o in tiny(tones, "encoder=bilstm", "trainer.max_epochs=1") if not o.startswith("logger")]
    done = subprocess.run(
        [sys.executable, "-m", "asr_lab", "sweep", "tiny", *overrides],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return here, overrides, done


def cells(here: Path) -> list[Path]:
    return sorted(p.parent for p in (here / "outputs" / "tiny").glob("*/result.json"))


def test_every_cell_ran_with_its_own_folder(swept, asr_lab):
    here, _, done = swept
    results = [json.loads((c / "result.json").read_text()) for c in cells(here)]
    assert [r["status"] for r in results] == ["done"] * 2
    assert {(r["factors"]["clipping"], r["factors"]["seed"]) for r in results} == {("none", 1), ("norm", 1)}
    assert all((c / ".hydra" / "overrides.yaml").exists() and (c / "train.log").exists() for c in cells(here))
    assert "2 cells, 0 done already" in done.stderr
    assert "[2/2] done" in done.stderr


def test_the_plan_names_every_cell(swept, asr_lab):
    here, _, _ = swept
    plan = json.loads((here / "outputs" / "tiny" / "sweep.json").read_text())
    assert plan["question"] == "which clipping?"
    assert plan["command"].startswith("asr-lab sweep tiny")
    assert plan["axes"] == {"clipping": ["none", "norm"], "seed": [1]}
    assert {c["name"] for c in plan["cells"]} == {c.name for c in cells(here)}


@pytest.mark.slow
def test_repeating_runs_nothing_and_extending_runs_the_rest(swept, asr_lab):
    here, overrides, _ = swept
    stamps = {c: (c / "result.json").stat().st_mtime_ns for c in cells(here)}
    again = asr_lab("sweep", "tiny", *overrides, "seed=1,2", "clipping=norm", cwd=here)
    assert again.returncode == 0, again.stderr
    assert "2 cells, 1 done already" in again.stderr
    assert len(cells(here)) == 3
    assert all((c / "result.json").stat().st_mtime_ns == t for c, t in stamps.items())
    plan = json.loads((here / "outputs" / "tiny" / "sweep.json").read_text())
    assert len(plan["cells"]) == 3  # those of the first launch stay in the plan


def test_status_in_words_and_as_json(swept, asr_lab):
    here, _, _ = swept
    done = asr_lab("status", "tiny", "--json", cwd=here)
    found = json.loads(done.stdout)
    n = len(cells(here))  # slow tests add some
    assert n >= 2 and [found[k] for k in ("failed", "running", "queued", "planned")] == [0, 0, 0, 0]
    assert found["total"] == found["done"] == n and all(c["seconds"] > 0 for c in found["cells"])
    rates = {c["name"]: c["score"] for c in found["cells"]}
    assert rates == {c.name: json.loads((c / "result.json").read_text())["metrics"]["test/wer"] for c in cells(here)}
    said = asr_lab("status", "tiny", cwd=here).stdout
    assert "which clipping?" in said and "seed 1" in said and said.count("✓") >= 3
    everything = asr_lab("status", cwd=here)
    assert f"{n} cells: {n} done" in everything.stdout
    assert "did you mean 'tiny'" in only_line(asr_lab("status", "tinny", cwd=here))


def test_status_tells_cells_of_different_launches_apart():
    def cell(**factors):
        return SimpleNamespace(factors=factors)

    state: Any = SimpleNamespace(axes={"encoder": [], "seed": []})
    state.cells = [cell(encoder="rnn", seed=1, size="small"), cell(encoder="gru", seed=1, size="tiny")]
    assert _axes(state) == ["encoder"]
    state.cells.append(cell(encoder="rnn", seed=1, size="tiny"))
    assert _axes(state) == ["encoder", "size"]


def test_cells_that_come_twice_are_said(swept, asr_lab):
    here, overrides, _ = swept
    done = asr_lab("plan", "tiny", "--no-measure", *overrides, "clipping=norm,norm", "seed=1,2,1", cwd=here)
    assert "4 cells left out: the same as another" in done.stdout and "2 cells" in done.stdout, done


@pytest.mark.slow
def test_the_last_override_of_a_key_counts(swept, asr_lab):
    here, overrides, _ = swept
    for words, n in (
        (["seed=5", "seed=1,2,3"], 6),
        (["seed=1,2,3", "seed=5"], 2),
        (["optimizer.lr=1", "optimizer.lr=2,3"], 4),
    ):
        done = asr_lab("plan", "tiny", "--no-measure", "--json", *overrides, *words, cwd=here)
        assert len(json.loads(done.stdout)["cells"]) == n, words


def test_a_launcher_that_is_not_installed_names_its_extra():
    error = RuntimeError(
        "In 'config': Could not find 'hydra/launcher/ray'\n\nAvailable options in 'hydra/launcher':\n\tlocal"
    )
    assert one_line(error) == "hydra/launcher=ray is not installed: pip install 'asr-lab[ray]'"


def test_logs_of_a_cell(swept, asr_lab):
    here, _, _ = swept
    said = asr_lab("logs", cells(here)[0].name, cwd=here)
    assert "epoch 1/1" in said.stdout
    assert asr_lab("logs", cells(here)[0].name, "-n", "1", cwd=here).stdout == said.stdout.splitlines(True)[-1]
    assert "no run 'nothing'" in only_line(asr_lab("logs", "nothing", cwd=here))


def test_a_plan_starts_nothing(swept, asr_lab):
    here, overrides, _ = swept
    before = sorted(here.rglob("*"))
    done = asr_lab("plan", "tiny", "--no-measure", "--json", *overrides, "seed=1,2", cwd=here)
    found = json.loads(done.stdout)
    assert len(found["cells"]) == 4 and found["excluded"] == []
    assert [c["source"] for c in found["cells"]].count("it is done") == len(cells(here))
    assert found["seconds"] > 0  # the other seeds are like those that are done
    excluding = EXPERIMENT.replace("seed: [1]", "seed: [1, 2]\n  exclude: [{clipping: norm, seed: 2}]")
    (here / "experiments" / "excluding.yaml").write_text(excluding.replace("experiment: tiny", "experiment: other"))
    done = asr_lab("plan", "excluding", "--no-measure", *overrides, cwd=here)
    assert "1 cells left out: grid.exclude[0]: {'clipping': 'norm', 'seed': 2}" in done.stdout
    (here / "experiments" / "excluding.yaml").unlink()
    assert sorted(here.rglob("*")) == before
    assert "take at least" in only_line(
        asr_lab("plan", "tiny", "--no-measure", "--budget", "0.1s", *overrides, "seed=1,2", cwd=here)
    )


@pytest.mark.slow
def test_other_code_is_refused_unless_allowed(swept, asr_lab):
    here, overrides, _ = swept
    path = cells(here)[0] / "result.json"
    old = path.read_text()
    path.write_text(old.replace(json.loads(old)["code"], "0123456789ab"))
    try:
        said = only_line(asr_lab("sweep", "tiny", *overrides, cwd=here))
        assert "1 of 2 finished cells came of other code (0123456789ab" in said and "--allow-drift" in said
        assert asr_lab("sweep", "tiny", *overrides, "--allow-drift", cwd=here).returncode == 0
    finally:
        path.write_text(old)


@pytest.mark.slow
def test_a_rerun_gives_the_same_bits(swept, asr_lab):
    here, _, _ = swept
    done = asr_lab("rerun", cells(here)[0].name, cwd=here)
    assert done.returncode == 0 and "bit-equal" in done.stdout, done.stdout + done.stderr
    assert "points of curves: equal" in done.stdout and "tensors of weights: equal" in done.stdout
    assert (cells(here)[0] / "rerun-1" / "result.json").exists()
    again = json.loads(asr_lab("rerun", cells(here)[0].name, "--json", cwd=here).stdout)
    assert again["bit_equal"] and again["suspects"] == []


def test_the_report_reads_what_the_sweep_wrote(swept, asr_lab):
    here, _, _ = swept
    done = asr_lab("report", "tiny", cwd=here)
    assert done.returncode == 0, done.stderr
    folder = here / "outputs" / "tiny"
    assert all((folder / name).exists() for name in ("report.md", "report.html", "results.csv"))
    assert "which clipping?" in (folder / "report.md").read_text()
    assert str(Path("outputs/tiny/report.html")) in done.stdout


@pytest.mark.slow
def test_a_failing_cell_stops_no_other_and_is_named(swept, asr_lab):
    here, overrides, _ = swept
    done = asr_lab("sweep", "tiny", *overrides, "clipping=norm", "clipping.threshold=-1,2", "seed=1", cwd=here)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "1 of 2 cells did not finish" in last
    assert "clipping.threshold must be positive, -1 came" in last
    results = [json.loads((c / "result.json").read_text()) for c in cells(here)]
    statuses = [r["status"] for r in results if "clipping.threshold" in r["factors"]]
    assert sorted(statuses) == ["done", "failed"]
    again = asr_lab("sweep", "tiny", *overrides, "clipping=norm", "clipping.threshold=-1,2", "seed=1", cwd=here)
    assert again.returncode == 0 and "1 failed before, 0 to run" in again.stderr
    retried = asr_lab(
        "sweep", "tiny", *overrides, "clipping=norm", "clipping.threshold=-1,2", "seed=1", "--retry-failed", cwd=here
    )
    assert retried.returncode == 2 and "1 to run" in retried.stderr and "(try 2)" in retried.stderr
    report = asr_lab("report", "tiny", cwd=here)
    assert report.returncode == 0
    assert "threshold must be positive" in (here / "outputs" / "tiny" / "report.md").read_text()


def test_mistakes_in_a_grid_start_nothing(swept, asr_lab):
    here, overrides, _ = swept
    before = len(cells(here))
    assert "no such choice" in only_line(asr_lab("sweep", "tiny", *overrides, "clipping=norm,nrom", cwd=here))
    assert "no such key" in only_line(asr_lab("sweep", "tiny", *overrides, "clipping.treshold=1,2", cwd=here))
    bad = EXPERIMENT.replace("seed: [1]", "seed: []")
    (here / "experiments" / "bad.yaml").write_text(bad)
    only_line(asr_lab("sweep", "bad", *overrides, cwd=here))
    assert len(cells(here)) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "package"),
    [("basic", None), ("joblib", "hydra_plugins.hydra_joblib_launcher"), ("ray", "hydra_plugins.hydra_ray_launcher")],
)
def test_plain_hydra_multirun_with_another_launcher(swept, asr_lab, launcher, package):
    if package:
        pytest.importorskip(package)
    here, overrides, _ = swept
    args = [
        "train",
        "-m",
        *overrides,
        f"hydra/launcher={launcher}",
        f"experiment={launcher}",
        "seed=1,2",
        "logger=none",
    ]
    # In a process of its own: Ray does not give back what it takes.
    command = [sys.executable, "-m", "asr_lab", *args]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = list((here / "outputs" / launcher).glob("*/result.json"))
    assert len(results) == 2
    for path in results:
        assert json.loads(path.read_text())["status"] == "done"
        assert read_jsonl(path.parent / "metrics.jsonl")
    status = asr_lab("status", launcher, "--json", cwd=here)
    assert status.returncode == 0, status.stderr
    found = json.loads(status.stdout)
    assert found["done"] == 2  # the ledger is the same
    again = asr_lab(*args, cwd=here)
    assert again.returncode == 0 and "2 done already, 0 to run" in again.stderr
