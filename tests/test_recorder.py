"""The recorder of gradients in trainings: it sees what was there, changes nothing, loses nothing, waits for nobody."""

import json
import logging
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from asr_lab.callbacks.gradients import TOGETHER, GradientRecorder, layer_names
from asr_lab.clipping.norm import NormClipping
from asr_lab.files import read_jsonl
from asr_lab.gradients.record import LOOK, read_record
from asr_lab.optim.tally import Tally
from asr_lab.run import Run
from asr_lab.tracking.histograms import log_histograms
from asr_lab.train import train

from .conftest import make_run, tiny
from .test_training import interrupted_at

OPTIONS = {"every": 3, "max_rows": 1000, "max_looks": 100, "n_elements": 20, "n_units": 6}


class Module(nn.Module):
    """What the recorder knows of a training task."""

    def __init__(self, device: str = "cpu"):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 4)])
        self.end = nn.ParameterDict({"unused": nn.Parameter(torch.ones(3))})
        self.device, self.listeners, self.tally = torch.device(device), [], Tally()
        self.to(device)


class Steps:
    """A training loop that calls the recorder as Lightning and the task do, and keeps what it should have seen."""

    def __init__(self, recorder: GradientRecorder, device: str = "cpu", main: bool = True):
        torch.manual_seed(0)
        self.recorder, self.module = recorder, Module(device)
        self.trainer = SimpleNamespace(
            is_global_zero=main, state=SimpleNamespace(fn="fit"), loggers=[], global_step=0, world_size=1
        )
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.1)
        self.seen: list[dict] = []
        recorder.setup(self.trainer, self.module, "fit")
        recorder.on_train_start(self.trainer, self.module)

    def step(self, bad: float = 0.0, probes: int = 0, batches: int = 1) -> None:
        r, m, o = self.recorder, self.module, self.optimizer
        for batch in range(batches):
            r.on_train_batch_start(self.trainer, m, None, batch)
            if batch < batches - 1:
                r.on_train_batch_end(self.trainer, m, None, None, batch)
        before = [p.detach().clone() for p in m.parameters()]
        for _ in range(probes):  # at other weights, and with a gradient that is not the step's
            o.probing = True
            self._backward(7.0)
            r.on_before_optimizer_step(self.trainer, m, o)
            with torch.no_grad():
                for p in m.parameters():
                    p.add_(1.0)
        o.probing = False
        self._backward(1.0)
        m.layers[0].weight.grad += bad
        r.on_before_optimizer_step(self.trainer, m, o)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in m.parameters()]
        report = NormClipping(0.5, 2)(list(m.parameters()))
        no = torch.zeros((), dtype=torch.bool, device=m.device)
        m.tally.add(report.clipped, no, ~no)
        row = torch.stack([self.loss, report.norm_before, report.norm_after, report.clipped.float(), no.float()])
        for listener in m.listeners:
            listener(m.tally.steps - 1, 0.1, 1.0, row)
        if not bad:
            o.step()
        r.on_train_batch_end(self.trainer, m, None, None, batches - 1)
        self.seen.append(
            {"row": row, "grads": grads, "before": before, "after": [p.detach().clone() for p in m.parameters()]}
        )

    def _backward(self, size: float) -> None:
        self.optimizer.zero_grad()
        x = torch.linspace(-1, 1, 16, device=self.module.device).reshape(2, 8) * (1 + self.module.tally.steps)
        loss = size * self.module.layers[1](torch.tanh(self.module.layers[0](x))).square().sum()
        loss.backward()
        self.loss = loss.detach()


@pytest.fixture
def recorder(tmp_path) -> GradientRecorder:
    return GradientRecorder(tmp_path, **OPTIONS)


def check(steps: Steps) -> None:
    """What is in the file against what the loop has seen."""
    steps.recorder.write()
    found, norm = read_record(steps.recorder.file), torch.linalg.vector_norm
    assert found.steps.tolist() == list(range(len(steps.seen)))
    rows = torch.stack([s["row"] for s in steps.seen]).cpu().numpy()
    np.testing.assert_array_equal(found.values[:, :5], rows)
    assert found.looked.tolist() == list(range(0, len(steps.seen), OPTIONS["every"]))
    sample = found.sample
    for i, step in enumerate(found.looked.tolist()):
        seen = {k: [x.cpu() for x in v] for k, v in steps.seen[step].items() if k != "row"}
        look = {key: rows[i] for key, rows in found.looks.items()}
        moved = [a - b for a, b in zip(seen["after"], seen["before"], strict=True)]
        for key, tensors in (("norms", seen["grads"]), ("weights", seen["before"]), ("moves", moved)):
            np.testing.assert_allclose(look[key], [norm(x).item() for x in tensors], rtol=1e-5, err_msg=key)
        np.testing.assert_allclose(look["peaks"], [x.abs().max().item() for x in seen["grads"]], rtol=1e-6)
        for p, grad in enumerate(seen["grads"]):
            of_it = look["elements"][sample.element_of == p]
            assert len(of_it) and np.isin(of_it[np.isfinite(of_it)], grad.flatten().numpy()).all()
            for key, x in (("unit_norms", grad), ("unit_weights", seen["before"][p])):
                of_it = look[key][sample.unit_of == p]
                each = norm(x.flatten(1), dim=1).numpy() if x.ndim > 1 else np.zeros(0)
                assert all(np.isclose(each, one, rtol=1e-5).any() for one in of_it if np.isfinite(one))


class TestSteps:
    def test_what_was_there_is_recorded(self, recorder):
        steps = Steps(recorder)
        for _ in range(TOGETHER + 10):
            steps.step()
        check(steps)
        assert found_names(recorder) == [
            "layers.0.weight",
            "layers.0.bias",
            "layers.1.weight",
            "layers.1.bias",
            "end.unused",
        ]
        assert layer_names(steps.module) == ["layers.0", "layers.0", "layers.1", "layers.1", "end"]

    @pytest.mark.parametrize("bad", [float("inf"), float("nan")])
    def test_gradients_that_are_not_finite(self, recorder, bad):
        steps = Steps(recorder)
        for i in range(7):
            steps.step(bad if i in (3, 4) else 0.0)
        recorder.write()
        found = read_record(recorder.file)
        assert np.isfinite(found.column("norm_before")).tolist() == [True] * 3 + [False] * 2 + [True] * 2
        assert not np.isfinite(found.looks["norms"][1, 0]) and np.isfinite(found.looks["norms"][1, 2])
        assert found.looks["moves"][1].tolist() == [0.0] * 5
        assert np.isfinite(found.layers().ratios).all()

    def test_the_gradient_of_a_step_that_probes_first(self, recorder):
        """As sharpness-aware minimisation does: the weights move before they are stepped."""
        steps = Steps(recorder)
        for _ in range(4):
            steps.step(probes=1)
        check(steps)

    def test_accumulated_batches(self, recorder):
        steps = Steps(recorder)
        for _ in range(5):
            steps.step(batches=3)
        check(steps)

    def test_other_ranks_record_nothing(self, recorder):
        steps = Steps(recorder, main=False)
        steps.step()
        recorder.on_train_end(steps.trainer, steps.module)
        assert not steps.module.listeners and not recorder.file.exists() and recorder.summary({}) is None

    def test_a_broken_file_is_no_reason_not_to_train(self, recorder, caplog):
        recorder.file.write_bytes(b"torn")
        module = Module()
        module.tally.steps = 5
        trainer = SimpleNamespace(is_global_zero=True, state=SimpleNamespace(fn="fit"))
        recorder.setup(trainer, module, "fit")
        with caplog.at_level(logging.WARNING):
            recorder.on_train_start(trainer, module)
        assert "earlier steps are lost" in caplog.text

    @pytest.mark.parametrize(
        "wrong", [{"every": 0}, {"n_elements": 0}, {"n_units": 0}, {"max_rows": 99}, {"max_looks": 9}], ids=str
    )
    def test_bad_values_name_the_key(self, tmp_path, wrong):
        with pytest.raises(ValueError, match=rf"gradients\.{next(iter(wrong))} must be at least"):
            GradientRecorder(tmp_path, **(OPTIONS | wrong))

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_no_step_waits_for_the_device(self, recorder):
        steps = Steps(recorder, "cuda")
        steps.step()  # what is made once
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(2 * TOGETHER + 5):
                steps.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        check(steps)


def found_names(recorder: GradientRecorder) -> list[str]:
    return list(read_record(recorder.file).sample.parameters)


def test_a_training_is_recorded_and_stays_as_it_is(trained):
    overrides = ["encoder=bilstm", "trainer.log_every_n_steps=1"]
    run, result = trained(*overrides, "gradients.every=2", name="on")
    off, without = trained(*overrides, "gradients=none", name="off")
    assert result["metrics"] == without["metrics"] and run.fingerprint == off.fingerprint
    assert without["gradients"] is None and not (off.folder / "gradients.npz").exists()
    found = read_record(run.folder / "gradients.npz")
    assert found.steps.tolist() == list(range(result["steps"])) and found.looked.tolist() == [
        *range(0, result["steps"], 2)
    ]
    rows = [row for row in read_jsonl(run.metrics_file) if "train/grad_norm" in row]
    for column, key in (
        ("norm_before", "train/grad_norm"),
        ("norm_after", "train/grad_norm_after"),
        ("lr", "train/lr"),
    ):
        assert found.column(column) == pytest.approx([row[key] for row in rows], rel=1e-6)
    # Of every parameter: together they are the norm of all.
    of_all = np.linalg.norm(found.looks["norms"], axis=1)
    assert of_all == pytest.approx(found.column("norm_before")[found.looked], rel=1e-5)
    # A step of Adam is about lr times the root of the number of weights.
    assert (found.layers().ratios > 0).all() and (found.layers().ratios < 1).all()
    gradients = result["gradients"]
    assert gradients["clipped"] == result["metrics"]["train/clipped"]
    assert gradients["norm"]["50"] == pytest.approx(np.percentile(found.column("norm_before"), 50))
    assert gradients["role"] in ("inert", "safety net", "in between", "limiter") and 0 < gradients["kept"] <= 1
    assert json.loads(run.result_file.read_text())["gradients"] == gradients


def same(a: Run, b: Run) -> None:
    one, two = (read_record(run.folder / "gradients.npz") for run in (a, b))
    assert one.steps.tolist() == two.steps.tolist() and one.looked.tolist() == two.looked.tolist()
    np.testing.assert_array_equal(one.values, two.values)
    for key in LOOK:
        np.testing.assert_array_equal(one.looks[key], two.looks[key], err_msg=key)


@pytest.mark.slow
def test_resumed_within_an_epoch_has_the_rows_of_an_uninterrupted_one(trained, tones, tmp_path):
    overrides = ["encoder=bilstm", "gradients.every=2"]
    whole, result = trained(*overrides, name="whole")
    make_run(tmp_path / "cut", [*tiny(tones, *overrides), "runtime.checkpoint_minutes=0.00001"])
    assert interrupted_at(tmp_path / "cut", step=result["steps"] // 2 + 1) == 143
    cut = Run.open(tmp_path / "cut")
    train(cut)
    same(whole, cut)


def test_a_killed_run_has_its_steps_up_to_the_last_checkpoint(trained, tones, tmp_path):
    overrides = ["encoder=bilstm", "gradients.every=2"]
    whole, result = trained(*overrides, name="whole")
    run = make_run(tmp_path / "cut", tiny(tones, *overrides))
    epoch = result["steps"] // 2
    assert killed_at(run.folder, step=epoch + 1) == -signal.SIGKILL
    assert read_record(run.folder / "gradients.npz").steps.tolist() == list(range(epoch))
    train(Run.open(run.folder))
    same(whole, run)


def killed_at(folder, step: int) -> int:
    pid = os.fork()
    if pid == 0:
        from asr_lab.base_task import Task
        from asr_lab.train import main

        real = Task.training_step

        def training_step(self, batch, batch_idx):
            if self.trainer.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, batch, batch_idx)

        Task.training_step = training_step
        main(str(folder))
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_accumulated_batches_are_one_row(trained):
    run, result = trained("encoder=bilstm", "trainer.accumulate_grad_batches=2", "gradients.every=1")
    found = read_record(run.folder / "gradients.npz")
    assert found.steps.tolist() == found.looked.tolist() == list(range(result["steps"]))
    assert (found.looks["moves"].max(1) > 0).all()


@pytest.mark.slow
def test_of_two_processes_the_first_records(tones, tmp_path):
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "gradients.every=1"]
    run = make_run(tmp_path / "run", tiny(tones, "encoder=bilstm", *ddp))
    command = [sys.executable, "-m", "asr_lab.train", str(run.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found, result = read_record(run.folder / "gradients.npz"), json.loads(run.result_file.read_text())
    assert found.steps.tolist() == found.looked.tolist() == list(range(result["steps"]))
    # The gradient of both ranks' batches, which is what was clipped.
    assert np.linalg.norm(found.looks["norms"], axis=1) == pytest.approx(found.column("norm_before"), rel=1e-5)


def test_an_explosion_is_recorded_to_its_end(trained, monkeypatch, tmp_path):
    from asr_lab.errors import ExplodedError
    from asr_lab.task import SpeechTask

    real = SpeechTask.training_step
    monkeypatch.setattr(SpeechTask, "training_step", lambda self, *a: real(self, *a) * float("inf"))
    with pytest.raises(ExplodedError):
        trained("encoder=bilstm", "max_nonfinite_steps=2", name="run")
    norms = read_record(tmp_path / "run" / "gradients.npz").column("norm_before")
    assert len(norms) == 3 and not np.isfinite(norms).any()


def test_a_language_model_is_recorded_too(tones, tmp_path):
    from .conftest import tiny_lm

    run = make_run(tmp_path / "run", tiny_lm(tones, "gradients.every=2"), "lm")
    result = train(run)
    assert len(read_record(run.folder / "gradients.npz").steps) == result["steps"] and result["gradients"]["role"]


class TestHistograms:
    def test_tensorboard_gets_them(self, trained):
        event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        run, result = trained("encoder=bilstm", "logger=tensorboard", "gradients.every=1")
        events = event_accumulator.EventAccumulator(str(run.folder / "tensorboard"))
        events.Reload()
        tags = events.Tags()["histograms"]
        layers = read_record(run.folder / "gradients.npz").layers().names
        assert set(tags) <= {f"gradient_log10/{layer}" for layer in layers} and len(tags) == 2
        last = events.Histograms(tags[0])[-1]
        assert last.step == result["steps"] and last.histogram_value.num >= 1

    def test_a_failure_is_said_once_and_ends_nothing(self, caplog):
        class Broken(TensorBoardLogger):
            def __init__(self):
                pass

            @property
            def experiment(self):
                raise RuntimeError("no space\nhere")

        with caplog.at_level(logging.WARNING):
            assert log_histograms([Broken()], {"a": np.ones(3)}, 1) is False
        assert [r.getMessage() for r in caplog.records] == [
            "histograms of gradients are no longer logged (no space here)"
        ]

    def test_nothing_to_show_is_no_failure(self):
        seen = []

        class Silent(TensorBoardLogger):
            def __init__(self):
                pass

            @property
            def experiment(self):
                return SimpleNamespace(add_histogram=lambda *args, **more: seen.append(args))

        assert log_histograms([Silent()], {"a": np.zeros(3), "b": np.array([np.nan, np.inf])}, 1)
        assert log_histograms([Silent()], {"a": np.array([0.0, 0.01, -0.01, np.nan])}, 1)
        [(key, values, step)] = seen
        assert (key, values.tolist(), step) == ("gradient_log10/a", [-2.0, -2.0], 1)
