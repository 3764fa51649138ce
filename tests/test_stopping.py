"""A run that is told to stop saves between two steps, and goes on as if nobody had told it anything."""

import errno
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from asr_lab.callbacks.stopping import StopBetweenSteps
from asr_lab.errors import PausedError, RankLostError
from asr_lab.files import read_jsonl
from asr_lab.process import PATIENCE_S, PAUSE, Stop, n_threads, told_to_stop
from asr_lab.run import Run
from asr_lab.sweep.state import state_of
from asr_lab.train import FULL, main, train

from .conftest import make_run, tiny

EPOCHS = ["trainer.max_epochs=3", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tones):
    run = make_run(tmp_path_factory.mktemp("whole") / "run", tiny(tones, *EPOCHS))
    train(run)
    return run


@pytest.fixture(scope="module")
def uninterrupted(whole):
    return whole.result()


def rows(run: Run) -> list[dict]:
    """Of metrics.jsonl, without the clock"""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_jsonl(run.metrics_file)]


@pytest.fixture(autouse=True)
def nothing_wanted(monkeypatch):
    monkeypatch.setattr(Stop, "wanted", None)
    monkeypatch.setattr(Stop, "can_wait", False)
    monkeypatch.setattr(Stop, "ends", False)


def told_at(monkeypatch, step: int) -> None:
    def wanted(self, trainer, batch_idx) -> bool:
        return trainer.global_step >= step

    monkeypatch.setattr(StopBetweenSteps, "_wanted", wanted)


@pytest.mark.parametrize("where", ["within an epoch", "at its last step"])
def test_it_saves_ends_and_goes_on(tmp_path, tones, monkeypatch, whole, uninterrupted, where):
    per_epoch = uninterrupted["steps"] // 3
    step = per_epoch + (1 if where == "within an epoch" else per_epoch)
    run = make_run(tmp_path / "run", tiny(tones, *EPOCHS))
    with monkeypatch.context() as m:
        told_at(m, step)
        with pytest.raises(SystemExit) as stopped:
            train(run)
    assert stopped.value.code == 143
    result = run.result()
    assert result and result["status"] == "preempted"
    found = train(run)
    assert found["resumed_at_step"] == step
    assert found["metrics"] == uninterrupted["metrics"]
    assert rows(run) == rows(whole)


def test_told_after_the_last_step_it_still_goes_on_to_the_end(tmp_path, tones, monkeypatch, uninterrupted):
    run = make_run(tmp_path / "run", tiny(tones, *EPOCHS))
    told_at(monkeypatch, uninterrupted["steps"])
    assert train(run)["metrics"] == uninterrupted["metrics"]


def test_a_pause_after_an_epoch(tmp_path, tones, monkeypatch, uninterrupted):
    run = make_run(tmp_path / "run", tiny(tones, *EPOCHS))
    for n in (1, 2):
        with monkeypatch.context() as m:
            m.setenv(PAUSE, str(n))
            with pytest.raises(PausedError, match=f"paused after epoch {n}"):
                train(run)
        result = run.result()
        assert result and (result["status"], result["reason"]) == ("preempted", f"paused after epoch {n}")
    monkeypatch.setenv(PAUSE, "3")
    assert train(run)["metrics"] == uninterrupted["metrics"]


def test_progress_and_ledger_of_a_cell(tmp_path, tones):
    (tmp_path / "sweep.json").write_text(
        json.dumps({"experiment": "e", "cells": [{"name": "run", "fingerprint": "", "factors": {"seed": 1}}]})
    )
    assert state_of(tmp_path).counts["planned"] == 1
    run = make_run(tmp_path / "run", tiny(tones, "trainer.max_epochs=1"))
    result = train(run)
    progress = json.loads((run.folder / "progress.json").read_text())
    assert (progress["step"], progress["epochs"], progress["metric"]) == (result["steps"], 1, "wer")
    [cell] = state_of(tmp_path).cells
    assert (cell.state, cell.score, cell.seconds) == ("done", result["metrics"]["test/wer"], result["seconds"]["total"])
    # The same from the files alone, should the ledger be lost.
    for path in (tmp_path / "ledger").iterdir():
        path.unlink()
    [again] = state_of(tmp_path).cells
    assert (again.state, again.score, again.seconds) == (cell.state, cell.score, cell.seconds)


def test_auto_threads_are_those_that_the_environment_shares_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    everything = n_threads("auto")
    assert everything >= 1
    for said, expected in (("3", 3), ("2,4", 2), ("", everything), ("0", everything), ("all", everything)):
        monkeypatch.setenv("OMP_NUM_THREADS", said)
        assert n_threads("auto") == expected
    assert n_threads(5) == 5


def test_a_rank_that_has_gone_is_no_failure_of_the_run(tones, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", tiny(tones, "encoder=bilstm"))

    def lost(*_):
        raise RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection reset by peer")

    monkeypatch.setattr("asr_lab.train._train", lost)
    with pytest.raises(RankLostError, match="another rank has gone"):
        train(run)
    assert (run.result() or {})["status"] == "preempted"
    assert main(str(run.folder)) == 128 + signal.SIGTERM


def test_a_cell_hears_signals_before_it_imports():
    """A scheduler's signal may come in the first seconds; unheard, it would end the process without a word."""
    code = """
import os, signal, sys
from asr_lab import train
def is_opened(folder):
    assert "torch" not in sys.modules
    os.kill(os.getpid(), signal.SIGUSR2)
train.Run.open = is_opened
train.main("run")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGUSR2, done.stderr


def test_the_same_signal_again_is_no_second_wish(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("asr_lab.process.time.monotonic", lambda: clock[0])
    Stop.can_wait = True
    told_to_stop(signal.SIGUSR2, None)
    clock[0] += 0.9 * PATIENCE_S
    told_to_stop(signal.SIGTERM, None)
    assert Stop.wanted == signal.SIGUSR2 and not Stop.ends
    clock[0] += PATIENCE_S
    with pytest.raises(SystemExit) as stopped:
        told_to_stop(signal.SIGTERM, None)
    assert stopped.value.code == 128 + signal.SIGTERM
    told_to_stop(signal.SIGTERM, None)  # on its way out
    clock[0] += PATIENCE_S
    with pytest.raises(SystemExit):  # which something has barred
        told_to_stop(signal.SIGTERM, None)


def test_signals_in_a_row_leave_a_checkpoint_and_the_status(tmp_path, tones):
    """As scancel does, which tells a job's steps twice."""
    run = make_run(tmp_path / "run", tiny(tones, "trainer.max_epochs=100000"))
    child = subprocess.Popen([sys.executable, "-m", "asr_lab.train", str(run.folder)], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not run.last_checkpoint.exists() and time.monotonic() < until:
            time.sleep(0.05)
        while child.poll() is None and time.monotonic() < until:
            child.send_signal(signal.SIGUSR2)
            time.sleep(0.005)
    finally:
        child.kill()
    assert child.wait() == 128 + signal.SIGUSR2
    assert (run.result() or {})["status"] == "preempted" and run.last_checkpoint.exists()


def test_a_full_disk_has_its_status_though_nothing_can_be_said(tmp_path, tones, monkeypatch):
    run = make_run(tmp_path / "run", tiny(tones, "encoder=bilstm"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("asr_lab.train._train", full)
    with open("/dev/full", "w", buffering=1) as log:
        monkeypatch.setattr(sys, "stderr", log)
        assert main(str(run.folder)) == FULL
        monkeypatch.undo()
        with suppress(OSError):
            log.close()
