"""Steps that are not finite: the verdict on each known cause, what is kept, and that training does not notice."""

import json
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asr_lab.build import build
from asr_lab.errors import DataError, DiskFullError, ExplodedError
from asr_lab.gradients.forensics import judge, read_incident, write_incident
from asr_lab.gradients.incidents import Incidents, Step
from asr_lab.gradients.replay import Micro, Replay
from asr_lab.sweep.cell import resolved
from asr_lab.task import SpeechTask

from .conftest import composed, make_run, only_line, tiny
from .test_detectors import Toy, ToyBatch, batches, fit, watch


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


class NanBackwards(torch.autograd.Function):
    """The identity, with a gradient of `value` for one element."""

    value = float("nan")

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore
        grad = grad.clone()
        grad.view(-1)[0] = NanBackwards.value
        return grad


class Wrong(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return NanBackwards.apply(x)  # pyright: ignore


class Half(nn.Module):
    """What float16 cannot hold, under autocast only."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1e5
        return (x.half().float() if torch.is_autocast_enabled("cpu") else x) * 1e-5


class Flaky(nn.Module):
    """NaN at its third call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * float("nan") if self.calls == 3 else x


def net(*inside: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), *inside, nn.Linear(8, 8))


def explode(folder: Path, task: Toy, data: list[ToyBatch], **trainer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what result.json would have as `nonfinite`, the first report)"""
    told: dict[str, Any] = {}
    with suppress(ExplodedError):
        fit(task, data, watch(folder, told), **trainer)
    return told["nonfinite"], json.loads((folder / told["nonfinite"]["folder"] / "report.json").read_text())


class TestVerdicts:
    def test_in_the_data(self, tmp_path):
        data = batches(10)
        data[6].feats[2, 3, 1] = float("nan")
        said, report = explode(tmp_path, Toy(net()), data)
        assert said == {
            "step": 6,
            "verdict": "in the data: features of u26 are not finite",
            "folder": "forensics/step_6",
        }
        assert report["kind"] == "data" and report["ids"] == [["u24", "u25", "u26", "u27"]]
        assert report["n_nonfinite_parameters"] == 4 and report["nonfinite_parameters"][0] == "net.0.weight"

    def test_in_the_weights(self, tmp_path):
        task = Toy(net())
        task.net[1].weight.data[0, 0] = float("inf")  # pyright: ignore
        said, _ = explode(tmp_path, task, batches(6))
        assert said["step"] == 0 and said["verdict"] == "the weights themselves are not finite: net.1.weight"

    def test_in_the_forward_pass(self, tmp_path):
        data = batches(10)
        data = [b._replace(feats=b.feats.abs() + 0.1) for b in data]
        data[5].feats[3] -= 5  # the logarithm of what is negative
        said, report = explode(tmp_path, Toy(nn.Sequential(Log(), nn.Linear(8, 8))), data)
        assert said["step"] == 5 and said["verdict"] == "in the forward pass: the output of net.0 for u23"
        assert report["replay"]["module"] == "net.0" and report["replay_as_trained"] is None

    def test_in_the_loss_alone(self, tmp_path):
        task = Toy(net(), target=lambda out: out * float("inf"))
        said, _ = explode(tmp_path, task, batches(6))
        assert said["verdict"] == "in the forward pass: the loss is inf, every module's output before it is finite"

    def test_in_the_backward_pass(self, tmp_path, monkeypatch):
        for value in ("nan", "inf"):
            monkeypatch.setattr(NanBackwards, "value", float(value))
            said, report = explode(tmp_path / value, Toy(net(Wrong())), batches(6))
            assert said["verdict"].startswith("in the backward pass: NanBackwardsBackward gives what is not finite (")
            assert said["verdict"].endswith("), near the output of net.0")
            assert "test_forensics.py" in report["replay"]["line"] and report["kind"] == "backward"
            assert set(report["replay"]["parameters"]) == {"net.0.weight", "net.0.bias"}

    def test_the_root_of_zero(self, tmp_path):
        """Infinite where it comes from, NaN only further down."""

        class Root(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x - x).sqrt()

        said, _ = explode(tmp_path, Toy(net(Root())), batches(6))
        assert "SqrtBackward0 gives what is not finite" in said["verdict"]

    def test_a_precision_matter(self, tmp_path):
        said, report = explode(tmp_path, Toy(net(Half())), batches(6), precision="bf16-mixed")
        assert said["verdict"].startswith(
            "a precision matter: finite in float32; in bf16-mixed it comes up in the forward pass: the output of net.1"
        )
        assert report["replay"]["module"] is None and report["replay_as_trained"]["module"] == "net.1"

    def test_what_does_not_come_again(self, tmp_path):
        said, _ = explode(tmp_path, Toy(net(Flaky())), batches(6))
        assert said["step"] == 2 and said["verdict"].startswith("not reproduced: finite")

    def test_a_model_that_raises_is_told(self):
        class Raises(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise KeyError("x")

        judged = judge(Toy(net(Raises())), [Micro(batches(1)[0], 0)])
        assert judged.text == "in the forward pass: KeyError: 'x'"

    def test_names_are_few(self):
        data = batches(1)[0]
        wide = ToyBatch(torch.full((9, 2, 8), float("nan")), tuple(f"u{i}" for i in range(9)))
        assert judge(Toy(net()), [Micro(data, 0), Micro(wide, 0)]).text == (
            "in the data: features of u0, u1, u2, u3, u4 and 4 more are not finite"
        )


class TestNoTrace:
    def test_nothing_of_the_task_changes(self):
        task = Toy(net(nn.BatchNorm1d(6), nn.Dropout(0.5), Wrong()))
        task.train()
        for p in task.parameters():
            p.grad = torch.ones_like(p)
        before = {k: v.clone() for k, v in task.state_dict().items()}
        pointers = {k: v.data_ptr() for k, v in task.state_dict().items()}
        state = torch.get_rng_state()
        assert judge(task, [Micro(batches(1)[0], 5)]).kind == "backward"
        after = task.state_dict()
        assert all(torch.equal(after[k], before[k]) and after[k].data_ptr() == pointers[k] for k in before)
        assert all(torch.equal(p.grad, torch.ones_like(p)) for p in task.parameters())  # pyright: ignore
        assert torch.equal(torch.get_rng_state(), state) and task.training and "log" not in task.__dict__
        assert not any(m._forward_hooks for m in task.modules()) and not torch.is_anomaly_enabled()

    def test_narrow_weights_are_widened_meanwhile(self):
        task = Toy(net(Log()).to(torch.bfloat16))
        data = task.net[0].weight.data  # pyright: ignore
        batch = batches(1)[0]
        judged = judge(task, [Micro(batch, 0)], "bf16-true")
        assert judged.kind == "forward" and task.net[0].weight.data is not None  # pyright: ignore
        assert task.net[0].weight.dtype == torch.bfloat16  # pyright: ignore
        assert task.net[0].weight.data_ptr() == data.data_ptr()  # pyright: ignore

    def test_the_replay_draws_what_the_step_drew(self, tmp_path):
        """A mask of dropout that lets one utterance through decides whether the step is finite."""

        class Lucky(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * torch.where(torch.rand(x.shape[0], 1, 1) < 0.03, float("nan"), 1.0)

        _, report = explode(tmp_path, Toy(net(Lucky()), lr=1e-3), batches(60))
        assert report["kind"] == "forward" and report["replay"]["module"] == "net.1"
        assert set(report["replay"]["ids"]) < set(report["ids"][0])

    def test_a_training_with_a_bad_batch_is_bit_equal(self, trained, monkeypatch):
        real = SpeechTask.step

        def step(self: SpeechTask, batch: Any, stage: str) -> Tensor:
            return real(self, batch, stage) * (float("nan") if stage == "train" and "train3" in batch.ids else 1.0)

        monkeypatch.setattr(SpeechTask, "step", step)
        weights = []
        for choice in ("none", "standard"):
            run, result = trained("encoder=bilstm", f"detectors={choice}", name=choice)
            weights.append(torch.load(run.last_checkpoint, weights_only=False)["state_dict"])
        assert result["metrics"]["train/nonfinite"] == 2 and "the loss is nan" in result["nonfinite"]["verdict"]
        assert len(list((run.folder / "forensics").iterdir())) == 2
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


class TestEvidence:
    def test_what_is_kept(self, tmp_path):
        data = batches(80, n_frames=2)
        data[70].feats[0] = float("inf")
        task = Toy(net(), lr=1e-3)
        explode(tmp_path, task, data)
        folder = tmp_path / "forensics/step_70"
        assert sorted(p.name for p in folder.iterdir()) == ["batch.pt", "norms.npz", "report.json", "weights.pt"]
        norms = np.load(folder / "norms.npz")
        assert norms["steps"].tolist() == list(range(21, 71)) and norms["norms"].shape == (50, 2)
        assert norms["layers"].tolist() == ["net.0", "net.1"]
        assert np.isfinite(norms["norms"][:-1]).all() and not np.isfinite(norms["norms"][-1]).any()
        [micro], saved = read_incident(folder)
        assert micro.batch.ids == data[70].ids and torch.equal(micro.batch.feats, data[70].feats)
        # Weights are those before the step, which did not move them; later steps did.
        assert not torch.equal(saved["state_dict"]["net.0.weight"], task.net[0].weight)  # pyright: ignore
        fresh = Toy(net())
        fresh.load_state_dict(saved["state_dict"])
        assert judge(fresh, [micro]).kind == "data"

    def test_norms_of_layers_are_those_of_the_step(self, tmp_path):
        data = batches(4)
        data[3].feats[0] = float("nan")
        task = Toy(net(), lr=0.0)
        fit_task = Toy(net())
        fit_task.log = lambda *args, **kwargs: None  # pyright: ignore
        fit_task.step(data[1], "train").backward()
        explode(tmp_path, task, data)
        norms = np.load(tmp_path / "forensics/step_3/norms.npz")["norms"]
        wanted = [
            torch.stack([p.grad.norm() for p in part.parameters()]).norm().item()  # pyright: ignore
            for part in (fit_task.net[0], fit_task.net[1])  # pyright: ignore
        ]
        np.testing.assert_allclose(norms[1], wanted, rtol=1e-5)

    def test_accumulated_batches_are_all_kept(self, tmp_path):
        data = batches(8)
        data[4].feats[0] = float("nan")
        _, report = explode(tmp_path, Toy(net()), data, accumulate_grad_batches=2)
        assert report["step"] == 2 and len(report["ids"]) == 2 and "u16 are" in report["verdict"]

    def test_one_folder_a_row_of_steps_and_few_in_all(self, tmp_path):
        data = batches(30)
        for i in (2, 3, 4, 8, 12, 16, 20):
            data[i].feats[0] = float("nan")
        explode(tmp_path, Toy(net()), data)
        assert sorted(p.name for p in (tmp_path / "forensics").iterdir()) == ["step_12", "step_2", "step_8"]

    def test_a_full_disk_does_not_end_a_training(self, tmp_path, monkeypatch, caplog):
        def full(*args: Any) -> None:
            raise DiskFullError("no space left")

        monkeypatch.setattr("asr_lab.callbacks.watch.write_incident", full)
        data = batches(10)
        data[6].feats[0] = float("nan")
        told: dict[str, Any] = {}
        with caplog.at_level(logging.WARNING):
            fit(Toy(net()), data, watch(tmp_path, told))
        assert told["nonfinite"]["step"] == 6 and any("no space left" in r.message for r in caplog.records)

    def test_all_or_nothing(self, tmp_path, monkeypatch):
        task, micros = Toy(net()), [Micro(batches(1)[0], 0)]
        given = {"steps": [0], "norms": np.ones((1, 1)), "layers": ["a"], "task": task, "micros": micros}
        folder = tmp_path / "forensics/step_0"
        write_incident(folder, {"try": 1}, **given)
        with monkeypatch.context() as m:
            m.setattr(torch, "save", lambda *args: (_ for _ in ()).throw(OSError("gone")))
            with pytest.raises(OSError, match="gone"):
                write_incident(folder, {"try": 2}, **given)
        assert json.loads((folder / "report.json").read_text()) == {"try": 1}
        assert [p.name for p in folder.parent.iterdir()] == ["step_0"]
        write_incident(folder, {"try": 3}, **given)
        assert json.loads((folder / "report.json").read_text()) == {"try": 3}

    def test_killed_while_writing(self, tmp_path, monkeypatch):
        task, micros = Toy(net()), [Micro(batches(1)[0], 0)]
        folder = tmp_path / "forensics/step_0"
        write = lambda: write_incident(folder, {}, [0], np.ones((1, 1)), ["a"], task, micros)  # noqa: E731
        child = os.fork()
        if child == 0:
            torch.save = lambda *args: os.kill(os.getpid(), signal.SIGKILL)  # pyright: ignore
            write()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert not folder.exists() and len(list(folder.parent.iterdir())) == 1
        write()
        assert [p.name for p in folder.parent.iterdir()] == ["step_0"]

    def test_a_torn_folder_is_one_line(self, tmp_path):
        (tmp_path / "batch.pt").write_bytes(b"torn")
        with pytest.raises(DataError, match="not a step's forensic folder") as error:
            read_incident(tmp_path)
        assert "\n" not in str(error.value)


class TestLossScale:
    def examined(self, rows: list[tuple[float, float, float]], scaled: bool = True) -> list[int]:
        """Steps that are examined, of (loss, norm, scale) each."""
        seen: list[int] = []
        incidents = Incidents(3, 20, lambda step, numbers, n_later: seen.append(step.step))
        for i, (loss, norm, scale) in enumerate(rows):
            numbers = torch.tensor([loss, norm, norm, 0.0, 1.0])
            incidents.add(Step(i, 0.1, scale, numbers, torch.zeros(1), ()), scaled)
        return seen

    inf = float("inf")

    def test_overflows_on_the_way_to_a_scale_are_normal(self):
        assert self.examined([(1.0, self.inf, 2.0 ** (16 - i)) for i in range(5)] + [(1.0, 1.0, 2048.0)] * 3) == []

    def test_a_scale_that_cannot_sink_is_not(self):
        assert self.examined([(1.0, self.inf, 2.0 ** (4 - i)) for i in range(8)]) == [4]

    def test_nor_is_a_row_of_them_near_the_limit(self):
        assert self.examined([(1.0, self.inf, 65536.0)] * 20) == [15]

    def test_a_loss_that_is_not_finite_has_no_scale(self):
        assert self.examined([(1.0, 1.0, 65536.0), (float("nan"), float("nan"), 65536.0)]) == [1]

    def test_without_a_scaler_the_first_counts(self):
        assert self.examined([(1.0, self.inf, 1.0)], scaled=False) == [0]

    def test_a_gpu_is_not_waited_for(self, monkeypatch):
        """With a device of our own: numbers arrive two steps late, or when training ends."""

        class Far:
            is_cuda = True

            def __init__(self, norm: float):
                self.norm = norm

            def to(self, device: str, non_blocking: bool) -> Tensor:
                assert device == "cpu" and non_blocking
                return torch.tensor([1.0, self.norm, self.norm, 0.0, 0.0])

        class Event:
            made: list["Event"] = []  # noqa: RUF012

            def record(self) -> None:
                self.made.append(self)

            def query(self) -> bool:
                return len(self.made) - self.made.index(self) > 2

            def synchronize(self) -> None:
                pass

        monkeypatch.setattr(torch.cuda, "Event", Event)
        seen: list[tuple[int, int]] = []
        incidents = Incidents(3, 20, lambda step, numbers, n_later: seen.append((step.step, n_later)))
        for i, norm in enumerate([1.0, self.inf, 1.0, 1.0, 1.0, self.inf]):
            incidents.add(Step(i, 0.1, 1.0, Far(norm), torch.zeros(1), ()), scaled=False)  # pyright: ignore
        assert seen == [(1, 2)]
        incidents.finish(scaled=False)
        assert seen == [(1, 2), (5, 0)]


class TestRuns:
    @pytest.mark.parametrize(
        "decoder",
        ["ctc", "transducer", *(pytest.param(d, marks=pytest.mark.slow) for d in ("attention", "hmm", "joint"))],
    )
    def test_a_healthy_step_comes_again_exactly(self, tones, decoder):
        """The same masks of dropout, and no module whose healthy output would pass for a fault."""
        parts = build(resolved(composed(*tiny(tones, f"decoder={decoder}"))))
        task = parts.task.train()
        task.log_dict = lambda *args, **kwargs: None
        batch = next(iter(parts.data.loader("train", 0, 1)))
        torch.manual_seed(5)
        loss = task.step(batch, "train").item()
        judged = judge(task, [Micro(batch, 5)])
        assert judged.kind == "not_reproduced" and judged.replay == Replay(loss)

    @pytest.fixture
    def exploded(self, tones, tmp_path, monkeypatch):
        """A run that ended, each of its training losses infinite from step 3 on."""
        from asr_lab.train import train

        real, calls = SpeechTask.step, []

        def step(self: SpeechTask, batch: Any, stage: str) -> Tensor:
            calls.append(stage)
            return real(self, batch, stage) * (float("inf") if len(calls) > 3 else 1.0)

        run = make_run(tmp_path / "outputs/x/run", tiny(tones, "encoder=bilstm", "max_nonfinite_steps=2"))
        with monkeypatch.context() as m:
            m.setattr(SpeechTask, "step", step)
            with pytest.raises(ExplodedError):
                train(run)
        return run

    def test_result_and_command_have_the_verdict(self, exploded, asr_lab, tmp_path):
        result = exploded.result()
        verdict = "in the forward pass: the loss is inf, every module's output before it is finite"
        assert result["status"] == "exploded" and verdict in result["reason"]
        assert result["nonfinite"] == {"step": 3, "verdict": verdict, "folder": "forensics/step_3"}
        shown = asr_lab("forensics", "run", cwd=tmp_path)
        assert shown.returncode == 0 and verdict in shown.stdout and "step 3 is not finite: loss inf" in shown.stdout
        # Its model is as healthy as it was before this test had its way.
        again = json.loads(asr_lab("forensics", "run", "--replay", "--json", cwd=tmp_path).stdout)
        assert again["incidents"][0]["verdict_again"].startswith("not reproduced")

    def test_nothing_found_is_said(self, trained, asr_lab, tmp_path):
        run, _ = trained("encoder=bilstm", "trainer.max_steps=2")
        assert "nothing found" in asr_lab("forensics", str(run.folder), cwd=tmp_path).stdout

    def test_without_detectors_is_one_line(self, trained, asr_lab, tmp_path):
        run, _ = trained("encoder=bilstm", "trainer.max_steps=2", "detectors=none")
        assert "detectors=standard" in only_line(asr_lab("forensics", str(run.folder), cwd=tmp_path))
        assert "no run 'nix'" in only_line(asr_lab("forensics", "nix", cwd=tmp_path))
