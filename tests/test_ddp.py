"""Two processes on CPU (gloo): every utterance is scored once, and both agree."""

import json
import subprocess
import sys

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
