"""What Slurm's queue says of cells, against what their files say: pretended answers of squeue."""

import os
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from asr_lab.hold import hold
from asr_lab.ledger import Ledger
from asr_lab.sweep import slurm_queue


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """`queue(cell="R"|"PD"|None)`: cells and the states of their jobs, which began a minute ago."""

    def ask(**states: str | None) -> tuple[set[str], list[str]]:
        ledger = Ledger(tmp_path)
        ledger.extend((cell, "queued", "", {"job": f"7_{i}"}) for i, cell in enumerate(states))
        ledger.close()
        start = datetime.fromtimestamp(time.time() - 60).isoformat(timespec="seconds")
        rows = [f"{8 + i}|7_{i}|{s}|{start if s == 'R' else 'N/A'}" for i, s in enumerate(states.values()) if s]
        monkeypatch.setattr(slurm_queue, "ask", lambda *_: "\n".join(rows))
        return slurm_queue.in_queue(tmp_path)

    return ask


def dead_holder(cell: Path, beat: float, host: str = "") -> None:
    """A lock as a killed process leaves it, whose last beat is so many seconds old."""
    cell.mkdir(exist_ok=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (cell / ".lock").write_text(f"pid {gone.pid} on {host or socket.gethostname()} started 1\n")
    os.utime(cell / ".lock", (time.time() - beat,) * 2)


def test_jobs_that_wait_or_have_just_begun_are_queued(queue, tmp_path):
    dead_holder(tmp_path / "requeued", beat=120)  # of the time before the job was queued again
    assert queue(waits="PD", begins="R", requeued="R", over=None) == ({"waits", "begins", "requeued"}, [])


def test_a_job_whose_process_is_gone_holds_its_place_no_longer(queue, tmp_path):
    dead_holder(tmp_path / "killed", beat=30)
    dead_holder(tmp_path / "silent", beat=30, host="elsewhere")  # may live: a beat is missed now and then
    with hold(tmp_path / "lives"):
        assert queue(killed="R", silent="R", lives="R") == ({"silent", "lives"}, ["7_0"])


def test_a_job_that_does_not_end_after_its_cell_is_lost(queue, tmp_path, monkeypatch):
    with hold(tmp_path / "done"):
        pass
    assert queue(done="R") == ({"done"}, [])
    os.utime(tmp_path / "done" / ".lock", (time.time() - 50,) * 2)
    assert queue(done="R") == ({"done"}, [])
    start = datetime.fromtimestamp(time.time() - 9000).isoformat(timespec="seconds")
    os.utime(tmp_path / "done" / ".lock", (time.time() - 3 * slurm_queue.GONE_S,) * 2)
    monkeypatch.setattr(slurm_queue, "ask", lambda *_: f"8|7_0|R|{start}")
    assert slurm_queue.in_queue(tmp_path) == (set(), ["7_0"])
