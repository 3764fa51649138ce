"""What has become of cells, from files alone: made by hand, one for each way in which a run can be found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asr_lab.errors import RunError
from asr_lab.hold import hold
from asr_lab.ledger import Ledger
from asr_lab.run import CANCELLED
from asr_lab.sweep.state import state_of


@pytest.fixture
def experiment(tmp_path):
    """`experiment(name=result or None, ...) -> folder`: a plan of these cells, and each one's result.json."""

    def make(**results: dict | None) -> Path:
        folder = tmp_path / "outputs" / "x"
        cells = [{"name": name, "fingerprint": "0", "factors": {"seed": i}} for i, name in enumerate(results)]
        folder.mkdir(parents=True)
        (folder / "sweep.json").write_text(json.dumps({"experiment": "x", "cells": cells, "common": {}}))
        for name, result in results.items():
            (folder / name).mkdir()
            if result is not None:
                (folder / name / "result.json").write_text(json.dumps({"fingerprint": "0", "metrics": {}} | result))
        return folder

    return make


def killed(cell: Path) -> None:
    """Leaves the lock of a process that was killed."""
    code = "import os, sys, pathlib, asr_lab.hold as h\nwith h.hold(pathlib.Path(sys.argv[1])): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(cell)], check=False).returncode == 9


def states(folder: Path) -> dict[str, str]:
    return {c.name: c.state for c in state_of(folder).cells}


def test_each_state(experiment):
    running, done = {"status": "running"}, {"status": "done", "metrics": {"test/wer": 0.1}, "seconds": {"total": 2.0}}
    folder = experiment(
        waits={"status": "planned"},
        queued={"status": "planned"},
        runs=running,
        gone=running,
        saved={"status": "preempted", "reason": "SystemExit: 143"},
        done=done,
        failed={"status": "failed", "reason": "no"},
        exploded={"status": "exploded"},
    )
    ledger = Ledger(folder)
    ledger.append("queued", "queued", job="3_1")
    ledger.close()
    killed(folder / "gone")
    with hold(folder / "runs"):
        assert states(folder) == {
            "waits": "planned",
            "queued": "queued",
            "runs": "running",
            "gone": "preempted",
            "saved": "preempted",
            "done": "done",
            "failed": "failed",
            "exploded": "exploded",
        }
        found = state_of(folder).as_json()
    assert (found["total"], found["running"], found["preempted"], found["done"]) == (8, 1, 2, 1)
    reasons = {c["name"]: c["reason"] for c in found["cells"]}
    assert reasons["gone"].startswith("its process is gone") and reasons["failed"] == "no"
    assert next(c for c in found["cells"] if c["name"] == "runs")["pid"] == os.getpid()


def test_a_cancelled_cell_that_was_killed_before_it_could_say_so(experiment):
    folder = experiment(killed={"status": "running"}, waits={"status": "planned"}, failed={"status": "failed"})
    killed(folder / "killed")
    for cell in ("killed", "waits", "failed"):
        (folder / cell / CANCELLED).write_text("by asr-lab cancel\n")
    assert states(folder) == {"killed": "cancelled", "waits": "cancelled", "failed": "failed"}
    with hold(folder / "waits"):  # it saves before it ends
        assert states(folder)["waits"] == "running"


def test_a_damaged_result_is_said(experiment):
    folder = experiment(torn={"status": "done"}, never=None)
    (folder / "torn" / "result.json").write_text('{"status": "do')
    state = state_of(folder)
    assert {c.name: c.state for c in state.cells} == {"torn": "failed", "never": "planned"}
    assert "torn" in state.damage[0] and "cannot be read" in state.damage[0]


def test_a_folder_without_a_plan_is_no_experiment(experiment, tmp_path):
    experiment(a=None)
    with pytest.raises(RunError, match="no sweep was launched there; choose from: x"):
        state_of(tmp_path / "outputs" / "y")
