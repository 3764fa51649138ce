"""Loggers: W&B offline and with the service away, TensorBoard, CSV. No account, no network."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from asr_lab.tracking import wandb


def test_wandb_offline_holds_identity_curves_and_samples(trained):
    run, result = trained("encoder=bilstm", "logger=wandb_offline", "trainer.log_every_n_steps=1", "gradients.every=2")
    [folder] = (run.folder / "wandb").glob("offline-run-*")
    [file] = folder.glob("*.wandb")
    assert file.name == f"run-{run.fingerprint}.wandb"
    records = [json.loads(line) for line in inspect(file)]
    text = json.dumps(records)
    for word in (
        "adhoc",
        "bilstm",
        "encoder=bilstm",
        "val/wer",
        "train/grad_norm_after",
        "gradient_log10/decoder.output",
    ):
        assert word in text, word
    assert "samples" in text
    assert run.result()["metrics"]["test/wer"] == result["metrics"]["test/wer"]


def inspect(file: Path) -> list[str]:
    command = [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"wandb leet inspect does not run here: {done.stderr[-200:]}")
    return [line for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_wandb_online_without_a_service_goes_on_offline(trained, monkeypatch):
    said = []
    monkeypatch.setattr(wandb.log, "warning", lambda message, *args: said.append(message % args))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    run, result = trained("encoder=bilstm", "logger=wandb", "logger.init_timeout_s=2", "trainer.max_steps=2")
    assert result["status"] == "done"
    assert list((run.folder / "wandb").glob("offline-run-*"))
    assert len(said) == 1
    assert "logging offline" in said[0]


def test_csv(trained):
    run, _ = trained("encoder=bilstm", "logger=csv")
    rows = list(csv.DictReader((run.folder / "csv" / "metrics.csv").open()))
    assert any(row["val/wer"] for row in rows)


def test_tensorboard(trained):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, _ = trained("encoder=bilstm", "logger=tensorboard")
    events = event_accumulator.EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert "val/wer" in events.Tags()["scalars"]
