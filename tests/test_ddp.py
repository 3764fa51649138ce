"""Two processes on CPU (gloo): every utterance is scored once, and both agree."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asr_lab.files import read_jsonl

from .conftest import make_run, tiny

pytestmark = pytest.mark.slow


def test_two_processes_train_and_score(tones, tmp_path):
    overrides = [
        "encoder=bilstm",
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.max_epochs=2",
    ]
    run = make_run(tmp_path / "run", tiny(tones, *overrides))
    command = [sys.executable, "-m", "asr_lab.train", str(run.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(run.result_file.read_text())
    assert result["status"] == "done"
    for split in ("val", "test"):
        rows = read_jsonl(run.hyps_file(split))
        assert len(rows) == len({r["id"] for r in rows}) == 6
        edits = sum(r["sub"] + r["del"] + r["ins"] for r in rows)
        assert result["metrics"][f"{split}/wer"] == pytest.approx(edits / sum(r["words"] for r in rows))


def test_the_command_line_starts_the_ranks_from_the_frozen_configuration(tones, tmp_path):
    overrides = [
        "encoder=bilstm",
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.max_epochs=1",
    ]
    command = [sys.executable, "-m", "asr_lab", "train", *tiny(tones, *overrides), "experiment=ddp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    [result] = (tmp_path / "outputs" / "ddp").glob("*/result.json")
    assert json.loads(result.read_text())["status"] == "done"


def test_a_sweep_starts_ranks_and_starts_them_again(tones, tmp_path):
    """A rank that is killed takes the others with it; the cell goes on from its checkpoint, and gives the same."""
    overrides = [
        "encoder=bilstm",
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.max_epochs=40",
        "hydra.launcher.n_jobs=1",
    ]
    command = [sys.executable, "-m", "asr_lab", "train", "-m", *tiny(tones, *overrides)]

    def launch(experiment: str) -> subprocess.Popen:
        own = [*command, f"experiment={experiment}"]
        return subprocess.Popen(own, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def results(experiment: str) -> list[dict]:
        paths = (tmp_path / "outputs" / experiment).glob("*/result.json")
        return [json.loads(p.read_text()) for p in paths]

    killed = launch("killed")
    folder = tmp_path / "outputs" / "killed"
    until = time.monotonic() + 120
    while not (last := list(folder.glob("*/ckpt/last.ckpt"))):
        assert time.monotonic() < until and killed.poll() is None
        time.sleep(0.05)
    os.kill(_rank(1, last[0].parents[1]), signal.SIGKILL)
    _, said = killed.communicate(timeout=300)
    assert killed.returncode == 0 and "started again" in said, said[-3000:]
    undisturbed = launch("undisturbed")
    _, said = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, said[-3000:]
    ours, theirs = results("killed"), results("undisturbed")
    assert [r["status"] for r in ours] == ["done"] and ours[0]["resumed_at_step"] > 0
    assert [r["metrics"] for r in ours] == [r["metrics"] for r in theirs]


def _rank(wanted: int, folder: Path) -> int:
    """The process of one rank of a run"""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_text().split("\0")
            environment = (process / "environ").read_text().split("\0")
            if command[-2:-1] == [str(folder)] and f"LOCAL_RANK={wanted}" in environment:
                return int(process.name)
    raise AssertionError("no such process")
