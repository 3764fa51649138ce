"""Searches beyond the grid: what is given up stays as cancelled, what comes to the end is what it would have been."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asr_lab.sweep.state import state_of

from ..conftest import tiny
from .test_faults import wait_for, workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EXPERIMENT = """
defaults:
  - config
  - override encoder: bilstm
  - override logger: none
  - _self_
experiment: search
grid:
  clipping: [none, norm]
  when:
    - {if: {clipping: norm}, grid: {clipping.threshold: [0.5, 5.0]}}
  sample: {n: 2, axes: {optimizer.lr: {log: [1e-3, 1e-1]}}}
"""


class Search:
    def __init__(self, here: Path, tones: Path, *more: str):
        (here / "experiments").mkdir(parents=True)
        (here / "experiments" / "search.yaml").write_text(EXPERIMENT)
        own = [o for o in tiny(tones, "encoder=bilstm") if not o.startswith(("logger", "encoder=", "trainer.max"))]
        self.here, self.folder = here, here / "outputs" / "search"
        self.command = [sys.executable, "-m", "asr_lab", "sweep", "search", *own, "hydra.launcher.n_jobs=2", *more]

    def run(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, *more], cwd=self.here, capture_output=True, text=True, check=False)

    def results(self) -> dict[str, dict]:
        return {p.parent.name: json.loads(p.read_text()) for p in self.folder.glob("*/result.json")}


def test_halving(tmp_path, tones):
    search = Search(tmp_path / "halving", tones, "trainer.max_epochs=4")
    halving = ["hydra/sweeper=halving", "hydra.sweeper.first=1", "hydra.sweeper.eta=2"]
    done = search.run(*halving)
    assert done.returncode == 0, done.stderr
    results = search.results()
    assert len(results) == 6
    finished = [r for r in results.values() if r["status"] == "done"]
    given_up = [r for r in results.values() if r["status"] == "cancelled"]
    assert (len(finished), len(given_up)) == (1, 5)
    assert sum("halved at epoch 1" in r["reason"] for r in given_up) == 3
    assert finished[0]["resumed_at_step"] > 0
    plain = Search(tmp_path / "plain", tones, "trainer.max_epochs=4")
    assert plain.run().returncode == 0
    same = [r for r in plain.results().values() if r["fingerprint"] == finished[0]["fingerprint"]]
    assert same[0]["metrics"] == finished[0]["metrics"]
    again = search.run(*halving)
    assert again.returncode == 0 and search.results() == results, again.stderr


def test_optuna(tmp_path, tones):
    import optuna

    search = Search(tmp_path, tones, "trainer.max_epochs=3", "hydra/sweeper=optuna", "hydra.sweeper.warmup_epochs=1")
    done = search.run("hydra.sweeper.n_trials=6")
    assert done.returncode == 0, done.stderr
    assert "best " in done.stderr
    state = state_of(search.folder)
    assert state.counts["done"] + state.counts["cancelled"] == len(state.cells) == 6
    stamps = {p: p.stat().st_mtime_ns for p in search.folder.glob("*/result.json")}
    assert search.run("hydra.sweeper.n_trials=6").returncode == 0
    assert {p: p.stat().st_mtime_ns for p in search.folder.glob("*/result.json")} == stamps
    # Killed in the middle, nothing that it has learnt is lost, and its cells go on.
    launcher = subprocess.Popen([*search.command, "hydra.sweeper.n_trials=10"], cwd=search.here)
    wait_for(lambda: len(workers(search)) >= 1)
    launcher.send_signal(signal.SIGKILL)
    wait_for(lambda: not workers(search))
    done = search.run("hydra.sweeper.n_trials=10")
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{search.folder / 'optuna.db'}")
    alive = [t for t in study.trials if "died" not in t.user_attrs]
    assert len(alive) == 10 and all(t.state.name in ("COMPLETE", "PRUNED") for t in alive)
    for trial in alive:
        result = search.results()[trial.user_attrs["cell"]]
        assert result["status"] == {"COMPLETE": "done", "PRUNED": "cancelled"}[trial.state.name]
        if trial.state.name == "COMPLETE":
            assert trial.value == result["metrics"]["val/wer"]


def test_mistakes(tmp_path, tones):
    search = Search(tmp_path, tones, "hydra/sweeper=optuna")
    for more, said in (
        (["hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be positive"),
        (["hydra.sweeper.pruner=hedge"], "choose from: median, halving, none"),
        (["clipping=nrom"], "no such choice"),
    ):
        done = search.run(*more)
        assert done.returncode == 2 and said in done.stderr.strip().splitlines()[-1], done.stderr
    search.command.remove("hydra.launcher.n_jobs=2")
    done = search.run("hydra/launcher=basic")
    assert done.returncode == 2 and "works with hydra/launcher=local" in done.stderr.strip().splitlines()[-1]
    assert not search.folder.exists()
