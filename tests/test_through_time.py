"""Gradients through time: recurrences whose gains are known, autograd through the fast kernels, and the probe."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from asr_lab.errors import ConfigError, DataError
from asr_lab.files import read_jsonl
from asr_lab.gradients.through_time import ThroughTime, log_gain, reach, read_through_time
from asr_lab.layers.recurrence import Lstm, Recurrence, VanillaRnn

from .conftest import make_run, only_line, tiny
from .test_recurrent import CELLS, HIDDEN, IN, make, speech


def gains(cell: Recurrence, x: torch.Tensor, n_lags: int = 20, n_frames: int = 3, n_directions: int = 8) -> np.ndarray:
    """(K+1,)"""
    return log_gain(cell, x, n_lags, n_frames, n_directions, torch.Generator().manual_seed(0)).exp().numpy()


class Linear(Recurrence):
    """h' = x + W h, W a rotation times `rho`."""

    n_gates = 1

    def __init__(self, width: int, rho: float):
        super().__init__(width)
        self.weight = nn.Parameter(rho * nn.init.orthogonal_(torch.empty(width, width)))

    def project(self, x, mask):
        return x

    def step(self, gates, state):
        return (gates + state[0] @ self.weight.t(),)


class TestGain:
    @pytest.mark.parametrize("rho", [0.5, 1.0, 1.3])
    def test_a_linear_recurrence_gives_the_power(self, rho):
        torch.manual_seed(0)
        got = gains(Linear(6, rho), torch.randn(40, 6))
        assert got == pytest.approx(rho ** np.arange(21), rel=1e-4)

    @pytest.mark.parametrize("rho", [1e-3, 1e3])
    def test_nothing_under_or_overflows(self, rho):
        logs = log_gain(Linear(6, rho), torch.randn(90, 6), 80, 2, 2, torch.Generator())
        assert logs[80].item() == pytest.approx(80 * math.log(rho), rel=1e-4)

    def test_a_saturated_tanh_vanishes(self):
        """Each frame multiplies by 1 - tanh(3)^2 = 0.0099 and the weight."""
        cell = VanillaRnn(1, 1, "tanh", "identity")
        cell.weights[0].data.fill_(0.0)
        cell.weights[2].data.fill_(3.0)
        cell.weights[1].data.fill_(1e-3)
        logs = log_gain(cell, torch.zeros(9, 1), 5, 1, 1, torch.Generator())
        h = math.tanh(3.0)
        assert logs.tolist() == pytest.approx([k * math.log(1e-3 * (1 - h * h)) for k in range(6)], rel=1e-2)

    def test_a_dead_relu_is_zero_and_stays(self):
        cell = VanillaRnn(2, 2, "relu", "identity")
        cell.weights[2].data.fill_(-1.0)
        cell.weights[0].data.fill_(0.0)
        assert gains(cell, torch.zeros(9, 2), 5).tolist() == [1, 0, 0, 0, 0, 0]

    @pytest.mark.parametrize(("forget_bias", "gain"), [(100.0, 1.0), (0.0, 0.5)])
    def test_an_lstm_keeps_what_its_forget_gates_keep(self, forget_bias, gain):
        """Gates of constants, an empty cell, an open output: d h / d c is 1, and each frame multiplies by the gate."""
        cell = Lstm(2, 4, "orthogonal", forget_bias)
        for weight in cell.weights[:2]:
            weight.data.zero_()
        cell.weights[2].data.chunk(4)[3].fill_(100.0)
        assert gains(cell, torch.zeros(30, 2)) == pytest.approx([1.0, *(gain ** np.arange(1, 21))], rel=1e-4)

    @pytest.mark.parametrize("name", CELLS)
    def test_cells_are_those_of_the_fast_kernels(self, name):
        """One direction at the last frame, against autograd through the cell's own `run` from a state `lag` before."""
        cell = make(name).eval()
        x, mask = speech([12])
        got = gains(cell, x[0], n_lags=8, n_frames=1, n_directions=1)
        v = torch.randn(1, HIDDEN, generator=torch.Generator().manual_seed(0))
        for lag in (1, 4, 8):
            _, state = cell(x[:, : 12 - lag], mask[:, : 12 - lag])
            state = tuple(s.detach().requires_grad_() for s in state)
            hidden, _ = cell(x[:, 12 - lag :], mask[:, 12 - lag :], state)
            found = torch.autograd.grad(hidden[0, -1] @ (v / v.norm())[0], state)
            assert got[lag] == pytest.approx(torch.cat(found, dim=-1).norm().item(), rel=1e-4)

    def test_many_directions_measure_the_jacobian(self):
        """The root mean square tends to its Frobenius norm over the root of the width."""
        cell = make("gru").eval()
        x, mask = speech([6])
        got = gains(cell, x[0], n_lags=3, n_frames=1, n_directions=4000)[3]
        before = cell(x[:, :3], mask[:, :3])[1][0]
        jacobian = torch.autograd.functional.jacobian(lambda h: cell(x[:, 3:], mask[:, 3:], (h,))[0][0, -1], before)
        assert got == pytest.approx(jacobian.norm().item() / HIDDEN**0.5, rel=0.05)

    def test_a_short_utterance_has_fewer_lags(self):
        assert len(gains(make("gru"), speech([5])[0][0], n_lags=20)) == 5
        assert gains(make("gru"), torch.zeros(1, IN)).tolist() == [1.0]


def record(n: int, max_rows: int = 50) -> ThroughTime:
    made = ThroughTime(["a", "b"], max_rows)
    for step in range(n):
        made.add(10 * step, np.full((2, 4), -step))
    return made


class TestRecord:
    def test_what_is_written_is_read(self, tmp_path):
        record(3).write(tmp_path / "t.npz")
        again = read_through_time(tmp_path / "t.npz")
        assert again.cells == ["a", "b"] and again.steps.tolist() == [0, 10, 20]
        assert again.logs.shape == (3, 2, 4) and again.logs[2, 0, 0] == -2

    def test_its_size_is_bounded_and_the_first_and_the_last_stay(self):
        made = record(1000, max_rows=20)
        assert len(made.steps) <= 20 and made.steps[0] == 0 and made.steps[-5:].tolist() == [
            9950, 9960, 9970, 9980, 9990,
        ]  # fmt: skip
        assert (10 * made.logs[:, 0, 0] == -made.steps).all()

    def test_a_resumed_training_takes_its_steps_again(self):
        made = record(5)
        made.cut(30)
        assert made.steps.tolist() == [0, 10, 20, 30]

    @pytest.mark.parametrize("content", [b"", b"text", None])
    def test_what_is_no_record_is_one_line(self, tmp_path, content):
        file = tmp_path / "t.npz"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(DataError, match=r"t\.npz: ") as error:
            read_through_time(file)
        assert "\n" not in str(error.value)

    def test_reach(self):
        falling, rising = np.log([1.0, 0.6, 0.4, 0.004]), np.log([1.0, 99.0, 101.0, 50.0])
        assert [reach(falling, g) for g in (0.5, 0.01, 100.0)] == [2, 3, None]
        assert [reach(rising, g) for g in (0.5, 0.01, 100.0)] == [None, None, 2]
        assert reach(np.array([0.0, -np.inf]), 0.01) == 1 and reach(np.array([np.nan]), 0.5) is None


class TestProbe:
    SHORT = ("encoder=bilstm", "encoder.n_layers=2", "trainer.max_steps=7", "trainer.max_epochs=9")
    OFTEN = ("through_time=probe", "through_time.every=3")

    def test_a_training_is_followed_and_its_numbers_are_the_same(self, trained):
        """Dropout and LiGRU's running statistics would show a random number drawn or a forward pass too many."""
        for encoder in ("bilstm", "ligru"):
            more = (*self.SHORT, f"encoder={encoder}", "augment=specaugment", "trainer.log_every_n_steps=1")
            run, result = trained(*more, *self.OFTEN, name=f"{encoder}1")
            other, plain = trained(*more, "through_time=none", name=f"{encoder}2")
            assert run.fingerprint == other.fingerprint
            assert result["metrics"] == plain["metrics"]
            losses = [[row.get("train/loss") for row in read_jsonl(r.metrics_file)] for r in (run, other)]
            assert losses[0] == losses[1] and len(losses[0]) > 6
            found = read_through_time(run.folder / "through_time.npz")
            assert found.steps.tolist() == [0, 3, 6, 7] and not (other.folder / "through_time.npz").exists()
            cells = 4 if encoder == "bilstm" else 2
            assert found.cells[1] == ("encoder.layers.0.cells.1" if cells == 4 else "encoder.layers.1.cells.0")
            assert found.logs.shape[1] == cells and found.logs.shape[2] > 10
            assert (found.logs[:, :, 0] == 0).all() and np.isfinite(found.logs).all()
            assert (found.logs[0] != found.logs[-1]).any()

    def test_a_resumed_training_goes_on_with_its_file(self, tmp_path, tones, monkeypatch):
        from asr_lab.callbacks.through_time import ThroughTimeProbe
        from asr_lab.train import train

        overrides = (*self.SHORT, *self.OFTEN, "runtime.checkpoint_minutes=0.0")
        whole, cut = (make_run(tmp_path / name, tiny(tones, *overrides)) for name in ("whole", "cut"))
        train(whole)
        followed = ThroughTimeProbe.on_train_batch_end

        def stop(self, trainer, task, *more):
            followed(self, trainer, task, *more)
            if task.tally.steps == 4:
                raise RuntimeError("power cut")

        with monkeypatch.context() as m:
            m.setattr(ThroughTimeProbe, "on_train_batch_end", stop)
            with pytest.raises(RuntimeError, match="power cut"):
                train(cut)
        assert read_through_time(cut.folder / "through_time.npz").steps.tolist() == [0, 3]
        assert train(cut)["resumed_at_step"] == 3  # saved after the probe has looked
        want, got = (read_through_time(run.folder / "through_time.npz") for run in (whole, cut))
        assert got.steps.tolist() == [0, 3, 6, 7] and np.array_equal(got.logs, want.logs)

    def test_an_encoder_without_recurrence_gets_no_file(self, trained):
        run, _ = trained("encoder=quartznet", "trainer.max_steps=1")
        assert not (run.folder / "through_time.npz").exists()

    @pytest.mark.parametrize(
        ("override", "says"),
        [("every=0", "through_time.every must be at least 1, 0 came"), ("n_lags=x", "wants n_lags as int, 'x' came")],
    )
    def test_values_that_cannot_be(self, override, says, tones, tmp_path):
        from asr_lab.train import train

        with pytest.raises(ConfigError, match=says):
            train(
                make_run(tmp_path / "run", tiny(tones, "encoder=gru", "through_time=probe", f"through_time.{override}"))
            )


class TestCommand:
    def write(self, folder, logs) -> str:
        """A run whose gradients through time are known"""
        made = ThroughTime(["encoder.layers.0.cells.0", "encoder.layers.1.cells.0"], 10)
        for step, row in enumerate(logs):
            made.add(100 * step, np.array(row))
        run = make_run(folder, tiny(folder / "manifest.jsonl", "encoder=gru", "through_time=probe"))
        made.write(run.folder / "through_time.npz")
        return str(run.folder)

    def test_lags_by_hand(self, tmp_path, asr_lab):
        falling, growing = math.log(0.55) * np.arange(9), math.log(11) * np.arange(9)
        dead = [0.0, *[-np.inf] * 8]
        run = self.write(tmp_path / "run", [[falling, growing], [dead, 0 * growing]])
        done = asr_lab("gradients", run, "--json", "--plot", "t.svg", cwd=tmp_path)
        rows = json.loads(done.stdout)["cells"]
        keys = ("step", "half_at_lag", "hundredth_at_lag", "hundredfold_at_lag")
        assert [[row[k] for k in keys] for row in rows] == [
            [0, 2, 8, None], [100, 1, 1, None], [0, None, None, 2], [100, None, None, None],
        ]  # fmt: skip
        assert rows[1]["log10_gain"] == [0.0, *[None] * 8] and rows[2]["log10_gain"][8] == pytest.approx(
            8 * math.log10(11), abs=1e-3
        )
        assert (tmp_path / "t.svg").read_text().lstrip().startswith("<?xml") and "t.svg" in done.stderr
        table = asr_lab("gradients", run, cwd=tmp_path).stdout
        assert "layers.1.cells.0" in table and "1e+8" in table

    def test_mistakes(self, tmp_path, asr_lab):
        run = self.write(tmp_path / "run", [])
        assert "not followed at any step" in only_line(asr_lab("gradients", run, cwd=tmp_path))
        assert "ending in .png" in only_line(asr_lab("gradients", run, "--plot", "t.gif", cwd=tmp_path))
        (tmp_path / "run" / "through_time.npz").unlink()
        assert "through_time=probe" in only_line(asr_lab("gradients", run, cwd=tmp_path))
        assert "no run 'nothing'" in only_line(asr_lab("gradients", "nothing", cwd=tmp_path))
