"""Identity, files, resumption: nothing finished is lost, nothing half-written is left."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from asr_lab.errors import DiskFullError, RunError
from asr_lab.files import read_jsonl, write_json, write_jsonl, write_text
from asr_lab.report.records import read_config
from asr_lab.run import Run, fingerprint
from asr_lab.sweep.cell import resolved
from asr_lab.train import train

from .conftest import composed, make_run, tiny


def test_fingerprint_ignores_what_cannot_change_a_number(tones):
    base = fingerprint(resolved(composed(*tiny(tones))))
    same = ["logger=csv", "experiment=other", "runtime.n_workers=2", "runtime.quiet=false", "data.root=/elsewhere"]
    for override in same:
        assert fingerprint(resolved(composed(*tiny(tones, override)))) == base, override
    for override in ["seed=2", "clipping=none", "optimizer.lr=0.5", "trainer.max_epochs=3", "data.carve_seed=1"]:
        assert fingerprint(resolved(composed(*tiny(tones, override)))) != base, override


def test_default_folder_names_the_choices_and_the_fingerprint(tones):
    cfg = composed("data=manifest", f"data.manifest={tones}", "encoder=bilstm", "logger=none", "experiment=x")
    folder = cfg.hydra.run.dir
    assert folder.startswith("outputs/x/data=manifest,")
    assert "encoder=bilstm" in folder
    assert "logger" not in folder
    assert folder.endswith("-" + fingerprint(resolved(cfg))[:8])


def test_a_run_leaves_its_files(trained):
    run, result = trained("encoder=bilstm", "logger=csv")
    names = {p.name for p in run.folder.iterdir()}
    assert {"config.yaml", "result.json", "metrics.jsonl", "hyps.val.jsonl", "hyps.test.jsonl", "ckpt", "csv"} <= names
    assert {p.name for p in run.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    on_disk = json.loads(run.result_file.read_text())
    assert on_disk == json.loads(json.dumps(result))
    assert on_disk["status"] == "done"
    for key in ("fingerprint", "factors", "metrics", "parameters", "seconds", "audio_seconds_per_second", "git"):
        assert key in on_disk
    assert on_disk["peak_memory_mb"] > 50
    assert on_disk["environment"]["torch"] == torch.__version__.partition("+")[0]
    row = read_jsonl(run.hyps_file("test"))[0]
    assert {"id", "ref", "hyp", "sub", "del", "ins", "words", "speaker", "duration"} <= row.keys()
    assert Run.open(run.folder).fingerprint == run.fingerprint


def test_metrics_rows_have_steps_and_norms(trained):
    run, _ = trained("encoder=bilstm", "trainer.log_every_n_steps=1")
    rows = read_jsonl(run.metrics_file)
    steps = [r["step"] for r in rows]
    assert steps == sorted(steps)
    assert any("val/wer" in r for r in rows)
    clipped = [r for r in rows if "train/grad_norm" in r]
    assert clipped
    assert all(r["train/grad_norm_after"] <= r["train/grad_norm"] + 1e-6 for r in clipped)
    assert all(r["train/grad_norm_after"] <= 1.0 + 1e-5 for r in clipped)  # conf/clipping/norm.yaml


def test_costs_are_of_the_whole_training_not_of_the_best_checkpoint(trained, monkeypatch):
    """Scoring with the best checkpoint restores callbacks: what they counted is read before."""
    from asr_lab.metrics.wer import ErrorRates

    real, calls = ErrorRates.compute, []

    def compute(self):
        calls.append(1)
        return real(self) | ({"wer": torch.tensor(0.0)} if len(calls) == 1 else {})  # the first epoch looks best

    monkeypatch.setattr(ErrorRates, "compute", compute)
    overrides = ["encoder=bilstm", "trainer.log_every_n_steps=1", "trainer.max_epochs=4", "clipping.threshold=12"]
    run, result = trained(*overrides)
    assert result["best"]["epoch"] == 0
    logged = [row["train/clipped"] for row in read_jsonl(run.metrics_file) if "train/clipped" in row]
    assert len(logged) == result["steps"]
    assert 0 < sum(logged) < len(logged)
    assert result["metrics"]["train/clipped"] == pytest.approx(sum(logged) / len(logged))
    last = torch.load(run.last_checkpoint, weights_only=False)
    assert result["seconds"]["train"] == pytest.approx(last["callbacks"]["Meter"]["train_seconds"], abs=1e-3)


def test_done_is_done(trained, tones, tmp_path):
    run, first = trained("encoder=bilstm")
    before = run.result_file.stat().st_mtime_ns
    again = train(make_run(run.folder, tiny(tones, "encoder=bilstm")))
    assert again == json.loads(json.dumps(first))
    assert run.result_file.stat().st_mtime_ns == before


def test_rerun_keeps_the_old_one_beside(trained, tones):
    run, first = trained("encoder=bilstm")
    again = train(make_run(run.folder, tiny(tones, "encoder=bilstm", "runtime.rerun=true")))
    assert again["metrics"] == first["metrics"]
    assert json.loads((run.folder / "previous-1" / "result.json").read_text())["metrics"] == first["metrics"]


def test_another_run_in_the_folder_is_not_overwritten(trained, tones):
    run, first = trained("encoder=bilstm")
    with pytest.raises(RunError, match=r"holds another run \(seed: 1 there, 2 here\).*runtime.rerun=true"):
        make_run(run.folder, tiny(tones, "encoder=bilstm", "seed=2"))
    assert json.loads(run.result_file.read_text()) == json.loads(json.dumps(first))


def test_two_processes_never_train_the_same_run(tones, tmp_path):
    run = make_run(tmp_path / "run", tiny(tones, "encoder=bilstm"))
    with run.locked(), pytest.raises(RunError, match=rf"another process \(pid {os.getpid()} on"):
        train(Run.open(run.folder))


def test_failure_is_written_down(tones, tmp_path):
    run = make_run(tmp_path / "run", tiny(tones, "encoder=conformer", "encoder.attention.n_heads=5"))
    with pytest.raises(ValueError, match="n_heads"):
        train(run)
    result = run.result()
    assert result["status"] == "failed"
    assert "n_heads=5 does not divide" in result["reason"]
    make_run(run.folder, tiny(tones, "encoder=conformer", "encoder.attention.n_heads=4"))  # nothing to lose: replaced


def test_explosion_has_a_status_of_its_own(tones, tmp_path, monkeypatch):
    from asr_lab.decoders.ctc import CtcDecoder

    real = CtcDecoder.loss
    monkeypatch.setattr(CtcDecoder, "loss", lambda self, *a: real(self, *a) * float("nan"))
    run = make_run(tmp_path / "run", tiny(tones, "max_nonfinite_steps=2"))
    with pytest.raises(ValueError, match="gradient norm nan or inf in 3 steps in a row"):
        train(run)
    assert run.result()["status"] == "exploded"


# Files


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path):
    path = write_text(tmp_path / "a.json", "old")
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_torn_last_line_is_left_out(tmp_path):
    path = write_jsonl(tmp_path / "m.jsonl", [{"step": 1}, {"step": 2}])
    with open(path, "a") as f:
        f.write('{"step": 3, "lo')
    assert read_jsonl(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"st\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"m.jsonl:1: not a JSON object"):
        read_jsonl(path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 KB."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(mount)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_full_disk_leaves_the_old_file_and_no_half_one(small_disk):
    path = write_text(small_disk / "a.txt", "old")
    with pytest.raises(DiskFullError, match=r"a.txt: cannot write \(No space left on device\); free some space"):
        write_text(path, "x" * 300_000)
    assert path.read_text() == "old"
    assert [p.name for p in small_disk.iterdir()] == ["a.txt"]


def test_full_disk_in_training_is_one_line_and_can_go_on(small_disk, tones, tmp_path):
    run = make_run(small_disk / "run", tiny(tones, "encoder=bilstm", "encoder.d_hidden=64"))
    with pytest.raises(DiskFullError, match=r"no space left|cannot write"):
        train(run)
    assert json.loads(run.result_file.read_text())["status"] in ("failed", "running")
    assert not run.is_done()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert train(Run.open(run.folder))["status"] == "done"


def test_git_state_is_of_the_checkout():
    from asr_lab.environment import git_state

    state = git_state()
    head = Path(__file__).parents[1]
    known = subprocess.run(["git", "rev-parse", "HEAD"], cwd=head, capture_output=True, text=True, check=False)
    assert state["commit"] == (known.stdout.strip() or None)


def test_a_configuration_of_fifty_thousand_levels_is_one_line(tmp_path):
    """The parser in C would die of it."""
    (tmp_path / "config.yaml").write_text("a: " + "[" * 50_000)
    (tmp_path / "result.json").write_text('{"factors": {}}')
    with pytest.raises(RunError, match="not a run's folder"):
        Run.open(tmp_path)
    assert read_config(tmp_path / "config.yaml") == {}
