"""Detectors of a training that goes wrong: nets with a known fault, and trainings with none."""

import json
import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from asr_lab.base_task import Task
from asr_lab.callbacks.seeding import StepSeeds
from asr_lab.callbacks.watch import Watch
from asr_lab.clipping.none import NoClipping
from asr_lab.gradients import detect
from asr_lab.gradients.detect import Finding, Limits
from asr_lab.gradients.findings import Findings
from asr_lab.gradients.looks import NONE, Looks
from asr_lab.gradients.units import UnitWatch
from asr_lab.layers.norms import MaskedBatchNorm
from asr_lab.layers.recurrence import Gru, Lstm
from asr_lab.optim.schedules import Constant

from .conftest import composed

LIMITS = {
    "vanishing": 1e-5,
    "exploding": 10.0,
    "spike": 15.0,
    "window": 200,
    "stalled": 1e-6,
    "dead_peak": 1e-6,
    "dead_share": 0.25,
    "saturated_at": 0.99,
    "saturated_frames": 0.95,
    "saturated_share": 0.25,
}


class ToyBatch(NamedTuple):
    feats: Tensor  # (B,T,F)
    ids: tuple[str, ...]

    def to(self, device, non_blocking: bool = False) -> "ToyBatch":
        return self._replace(feats=self.feats.to(device))


class Toy(Task):
    """Any net, trained to give zeros or what `target` makes of the features."""

    unit = "frames"

    def __init__(self, net: nn.Module, target: Callable[[Tensor], Tensor] = torch.zeros_like, lr: float = 0.1):
        optimizer = partial(torch.optim.SGD, lr=lr)
        super().__init__(optimizer, 0.0, Constant(), NoClipping(), 3)
        self.net, self.target = net, target
        self.val_rates = self.test_rates = MeanMetric()

    def amount(self, batch: ToyBatch) -> float:
        return 1.0

    def step(self, batch: ToyBatch, stage: str) -> Tensor:
        out = self.net(batch.feats)
        loss = (out - self.target(out)).square().mean()
        self.log("train/loss", loss)
        return loss


def batches(n: int, n_frames: int = 6, width: int = 8, seed: int = 0) -> list[ToyBatch]:
    random = torch.Generator().manual_seed(seed)
    made = [torch.randn(4, n_frames, width, generator=random) for _ in range(n)]
    return [ToyBatch(feats, tuple(f"u{4 * i + j}" for j in range(4))) for i, feats in enumerate(made)]


def watch(folder: Path, told: dict[str, Any], every: int = 2, looks: int = 3, **limits: float) -> Watch:
    changed = Limits(**(LIMITS | limits))  # pyright: ignore
    return Watch(folder, lambda **said: told.update(said), every, looks, 100, 3, changed)


def fit(task: Task, data: list[ToyBatch], *callbacks: pl.Callback, **trainer: Any) -> None:
    given = {"max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False} | trainer
    shown = {"enable_progress_bar": False, "enable_model_summary": False, "barebones": False}
    loader = DataLoader(data, batch_size=None, collate_fn=lambda batch: batch)  # pyright: ignore
    pl.Trainer(callbacks=[StepSeeds(1), *callbacks], **given, **shown).fit(task, loader)


def found(net: nn.Module, folder: Path, n: int = 12, **toy: Any) -> list[dict[str, Any]]:
    told: dict[str, Any] = {}
    torch.manual_seed(0)
    limits = toy.pop("limits", {})
    data = toy.pop("data", None) or batches(n)
    fit(Toy(net, **toy), data, watch(folder, told, **limits))
    rows = (
        [json.loads(line) for line in (folder / "findings.jsonl").read_text().splitlines()] if told["findings"] else []
    )
    assert {(r["kind"], r["layer"]) for r in rows} == {(f["kind"], f["layer"]) for f in told["findings"]}
    return rows


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


class TestKnownFaults:
    def test_dead_relu(self, tmp_path):
        net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        nn.init.constant_(net[0].bias[:6], -10.0)
        [row] = found(net, tmp_path)
        assert (row["kind"], row["layer"], row["value"]) == ("dead", "net.1 (relu)", 0.75)
        # Looks at steps 0, 2, 4 must agree.
        assert row["step"] == 4 and "6 of 8 units" in row["text"]

    def test_units_without_a_gradient_are_dead(self, tmp_path):
        class Cut(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * (torch.arange(8) > 3)

        [row] = found(nn.Sequential(nn.Linear(8, 8), nn.SiLU(), Cut(), nn.Linear(8, 8)), tmp_path)
        assert (row["kind"], row["layer"], row["value"]) == ("dead", "net.1 (silu)", 0.5)

    def test_saturated_tanh(self, tmp_path):
        net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        nn.init.constant_(net[0].bias, 50.0)
        rows = found(net, tmp_path, limits={"vanishing": 1e-30, "stalled": 1e-30, "dead_peak": 0.0})
        assert ("saturated", "net.1 (tanh)", 1.0) in [(r["kind"], r["layer"], r["value"]) for r in rows]

    def test_deep_sigmoids_vanish(self, tmp_path):
        net = nn.Sequential(*[part for _ in range(12) for part in (nn.Linear(8, 8), nn.Sigmoid())])
        rows = [r for r in found(net, tmp_path) if r["kind"] == "vanishing"]
        # The first layers have the smallest gradients; the last have not vanished.
        layers = [int(r["layer"].split(".")[1]) for r in rows]
        assert layers == list(range(0, 2 * len(layers), 2)) and 2 <= len(layers) <= 8
        assert all(r["value"] < 1e-5 for r in rows) and rows[0]["value"] < rows[-1]["value"]

    def test_exploding_linear_chain_is_found_before_it_is_not_finite(self, tmp_path, caplog):
        net = nn.Sequential(nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 8))
        nn.init.orthogonal_(net[0].weight)
        # A quadratic loss of curvature 1/4 on average: steps of 8 overshoot by it all and more.
        with caplog.at_level(logging.WARNING):
            rows = found(net, tmp_path, n=45, lr=8.0, target=torch.ones_like, limits={"spike": 1e9})
        [row] = [r for r in rows if r["kind"] == "exploding"]
        assert row["value"] > 10 and row["layer"] == "net.1" and math.isfinite(row["value"])
        assert any("gradient norms of the last 10 steps" in r.message for r in caplog.records)

    def test_a_loss_spike_names_its_utterances(self, tmp_path):
        data = batches(40)
        data[30] = data[30]._replace(feats=data[30].feats * 100)
        [row] = found(nn.Linear(8, 8), tmp_path, data=data, lr=1e-6, limits={"stalled": 1e-30})
        assert (row["kind"], row["step"], row["ids"]) == ("loss_spike", 30, ["u120", "u121", "u122", "u123"])

    def test_stalled_weights(self, tmp_path):
        [row] = found(nn.Linear(8, 8), tmp_path, lr=1e-6)
        assert (row["kind"], row["layer"]) == ("stalled", "net") and 0 < row["value"] < 1e-6

    @pytest.mark.parametrize(("cell", "gate"), [(Lstm, "forget gate"), (Gru, "update gate")])
    def test_gates_that_never_close(self, cell, gate):
        more = {"forget_bias": 1.0} if cell is Lstm else {}
        made = cell(in_dim=3, d_hidden=4, recurrent_init="orthogonal", **more)
        made.weights[2].data.chunk(made.n_gates)[1][:] = 50.0  # in both the second
        x, mask = torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
        seen = UnitWatch(made, 0.99)
        seen.attach()
        made(x.requires_grad_(), mask)[0].sum().backward()
        seen.detach()
        shares = {name: units.saturated.tolist() for name, units in seen.read().items()}
        assert shares.pop(f" ({gate})") == [1.0] * 4
        assert all(max(share) < 0.5 for share in shares.values())

    def test_gates_are_those_of_the_equations(self):
        """What is recomputed, against steps taken one by one."""
        made = Lstm(in_dim=3, d_hidden=4, recurrent_init="orthogonal", forget_bias=1.0)
        made.weights[0].data *= 6
        x, mask = torch.randn(2, 50, 3), torch.ones(2, 50, dtype=torch.bool)
        seen = UnitWatch(made, 0.8)
        seen.attach()
        made(x, mask)
        seen.detach()
        state, stuck = (torch.zeros(2, 4), torch.zeros(2, 4)), torch.zeros(4, 4)
        for t in range(50):
            i, f, g, o = (made.project(x[:, t], mask[:, t]) + made.recur(state[0])).chunk(4, dim=-1)
            gates = torch.stack([i.sigmoid() * 2 - 1, f.sigmoid() * 2 - 1, g.tanh(), o.sigmoid() * 2 - 1])
            # sigmoid beyond 0.8 or 0.2: 0.6 on the scale from -1 to 1
            ends = torch.tensor([0.6, 0.6, 0.8, 0.6])[:, None, None]
            stuck += (gates.abs() > ends).sum(dim=1)
            state = made.step(made.project(x[:, t], mask[:, t]), state)
        shares = seen.read()
        for row, gate in zip(stuck / 100, ("input gate", "forget gate", "candidate", "output gate"), strict=True):
            np.testing.assert_allclose(shares[f" ({gate})"].saturated, row.detach(), atol=1e-6)


class TestUnits:
    def test_channels_are_told_from_frames(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.linear = nn.Conv1d(3, 5, 3), nn.Linear(5, 7)

            def forward(self, x: Tensor) -> Tensor:
                return self.linear(self.conv(x).relu().transpose(1, 2)).tanh()

        net = Net()
        seen = UnitWatch(net, 0.99)
        seen.attach()
        net(torch.randn(2, 3, 11)).sum().backward()
        seen.detach()
        assert {k: len(u.peaks) for k, u in seen.read().items()} == {" (relu)": 5, " (tanh)": 7}

    def test_nothing_is_left_behind(self):
        net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Tanh(), nn.BatchNorm1d(4)))
        seen = UnitWatch(net, 0.99)
        seen.attach()
        seen.attach()
        with pytest.raises(RuntimeError):
            net(torch.randn(2, 5))
        seen.detach()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
        net(torch.randn(2, 3, requires_grad=True))
        assert seen.read() == {}

    def test_padding_does_not_count_in_a_cell(self):
        cell = Lstm(in_dim=3, d_hidden=4, recurrent_init="orthogonal", forget_bias=1.0)
        x = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(0))
        seen = UnitWatch(cell, 0.99)
        seen_with = {}
        for n in (3, 6):
            seen.attach()
            cell(torch.where(torch.arange(6)[None, :, None] < 3, x, 1e3), torch.arange(6)[None] < n)
            seen.detach()
            seen_with[n] = seen.read()
        assert seen_with[3][" (input gate)"].saturated.max() == 0.0
        assert seen_with[6][" (input gate)"].saturated.min() == 0.5
        assert seen_with[3][""].peaks.sum() < seen_with[6][""].peaks.sum()

    def test_norms_over_frames_run_under_the_watch(self):
        norm = MaskedBatchNorm(3)
        seen = UnitWatch(norm, 0.99)
        seen.attach()
        norm(torch.randn(2, 4, 3), torch.ones(2, 4, dtype=torch.bool))
        seen.detach()
        assert seen.read() == {}


class TestByHand:
    def test_loss_spike(self):
        losses = np.array([1.0, 2.0, 3.0] * 10 + [50.0])
        # Median 2, MAD 1.
        [row] = detect.loss_spikes(np.arange(31), losses, 0, {30: ("a",)}, 200, 15.0)
        assert (row.step, row.ids) == (30, ("a",)) and row.value == pytest.approx(48 / 1.4826)
        assert not detect.loss_spikes(np.arange(31), losses, 31, {}, 200, 15.0)
        assert not detect.loss_spikes(np.arange(31), losses, 0, {}, 200, 33.0)

    @given(st.lists(st.floats(0.1, 100), min_size=25, max_size=60), st.sampled_from([1e-3, 2.0, 64.0]))
    @settings(max_examples=30, deadline=None)
    def test_a_spike_knows_no_unit(self, losses, scale):
        steps = np.arange(len(losses))
        ours, scaled = (detect.loss_spikes(steps, np.array(losses) * s, 0, {}, 50, 4.0) for s in (1.0, scale))
        values = [x.value for x in scaled]
        assert [x.value for x in ours if abs(x.value - 4) > 1e-6] == pytest.approx(
            [v for v in values if abs(v - 4) > 1e-6]
        )

    def test_a_constant_loss_has_no_spike_in_its_last_bit(self):
        losses = np.ones(50)
        losses[40] = 1.000001
        assert not detect.loss_spikes(np.arange(50), losses, 0, {}, 200, 3.0)

    def test_exploding_is_a_trend_not_a_spike(self):
        norms = np.ones(100)
        norms[95:98] = 1e6
        none = np.zeros((0, 1))
        assert not detect.exploding(99, norms, ["a"], none, 200, 10.0)
        norms[90:] = 11.0
        [row] = detect.exploding(99, norms, ["a"], none, 200, 10.0)
        assert (row.value, row.layer) == (11.0, None)
        layers = np.ones((50, 2))
        layers[40:, 1] = 11.0
        assert detect.exploding(99, norms, ["a", "b"], layers, 200, 10.0)[0].layer == "b"
        assert not detect.exploding(20, norms[80:], ["a"], none, 200, 10.0)  # too few before

    def test_vanishing(self):
        norms = np.array([[1.0, 1e-7, 1e-7, np.nan]] * 2 + [[1.0, 1e-7, 1e-3, np.nan]])
        [row] = detect.vanishing(9, ["top", "low", "once", "none"], norms, 1e-5)
        assert (row.layer, row.value, row.step) == ("low", pytest.approx(1e-7), 9)
        assert not detect.vanishing(9, ["a", "b"], np.zeros((3, 2)), 1e-5)

    def test_dead_and_saturated_need_all_looks(self):
        peaks = np.array([[0.0, 0.0, 1.0], [0.0, 5.0, 1.0]])
        nan = np.full_like(peaks, np.nan)
        [row] = detect.dead(1, "x", peaks, nan, 1e-6, 0.3)
        assert row.value == pytest.approx(1 / 3) and not detect.dead(1, "x", peaks, nan, 1e-6, 0.4)
        assert detect.dead(1, "x", peaks, np.zeros_like(peaks), 1e-6, 0.4)[0].value == 1.0
        [row] = detect.saturated(1, "x", np.array([[1.0, 0.9], [0.96, 1.0]]), 0.95, 0.5)
        assert row.value == 0.5

    def test_a_parameter_without_a_gradient_is_no_zero(self):
        looks = Looks(["a", "b", "c"], [0, 0, 1, 2], 1, Limits(**LIMITS))
        np.testing.assert_array_equal(looks.by_layer(np.array([[3.0, 4.0, NONE, 0.0]])), [[5.0, NONE, 0.0]])
        assert [f.layer for f in looks.of_layers(0, np.array([[3.0, 4.0, NONE, 0.0]]))] == ["c"]

    def test_the_end_of_a_schedule_is_no_stall(self):
        looks = Looks(["a"], [0], 1, Limits(**LIMITS))
        looks.add_steps([(0, 1.0, 1.0)], 1.0)
        tiny_move, weights = np.array([1e-9]), np.array([1.0])
        assert looks.of_weights(0, 1.0, tiny_move, weights) and not looks.of_weights(1, 0.01, tiny_move, weights)


def finding(kind: str, step: int, layer: str | None = None) -> Finding:
    return Finding(kind, step, layer, ("u",), 1.0, 0.5, "text")


class TestFindings:
    def test_once_until_it_is_over(self):
        all_kinds = {"dead", "loss_spike"}
        seen = Findings(10)
        assert seen.add([finding("dead", 1, "a"), finding("dead", 1, "b")], all_kinds)
        assert not seen.add([finding("dead", 2, "a"), finding("dead", 2, "b")], all_kinds)
        assert not seen.add([finding("dead", 3, "a")], all_kinds)
        assert [f.layer for f in seen.add([finding("dead", 4, "a"), finding("dead", 4, "b")], all_kinds)] == ["b"]
        assert not seen.add([], {"loss_spike"})  # nobody looked for dead units
        assert not seen.add([finding("dead", 6, "a")], all_kinds)
        rows = {row["layer"]: row for row in seen.summary()}
        assert (rows["a"]["first_step"], rows["a"]["last_step"], rows["a"]["count"]) == (1, 6, 1)
        assert rows["b"]["count"] == 2 and len(seen.rows) == 3

    def test_size_is_bounded_but_all_are_counted(self):
        seen = Findings(5)
        for step in range(20):
            seen.add([finding("loss_spike", 2 * step)], {"loss_spike"})
            seen.add([], {"loss_spike"})
        assert len(seen.rows) == 5 and seen.summary()[0]["count"] == 20

    def test_a_resumed_training_finds_again(self, tmp_path):
        seen, again = Findings(10), Findings(10)
        seen.add([finding("dead", 1, "a")], {"dead"})
        state = json.loads(json.dumps(seen.state_dict()))
        seen.add([finding("dead", 5, "b")], {"dead"})
        seen.write(tmp_path / "f.jsonl")
        again.restore(tmp_path / "f.jsonl", 3, state)
        assert [row["step"] for row in again.rows] == [1] and not again.add([finding("dead", 4, "a")], {"dead"})
        assert again.add([finding("dead", 5, "b")], {"dead"})


class TestHealthy:
    @pytest.mark.parametrize("encoder", ["bilstm", "conformer"])
    def test_a_training_that_learns_has_no_findings(self, trained, encoder):
        run, result = trained(f"encoder={encoder}", "detectors.every=2", "trainer.max_epochs=5")
        assert result["findings"] == [] and result["nonfinite"] is None
        assert not (run.folder / "findings.jsonl").exists() and not (run.folder / "forensics").exists()

    def test_nothing_of_a_training_changes(self, trained):
        weights = []
        for choice in (
            ("detectors=none",),
            ("detectors.every=1", "detectors.looks=1", "detectors.limits.spike=1.0e-3"),
        ):
            run, _ = trained("encoder=conformer", "trainer.max_epochs=2", *choice, name=choice[0])
            weights.append(torch.load(run.last_checkpoint, weights_only=False)["state_dict"])
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])

    def test_accumulated_batches_are_one_step(self, tmp_path):
        told: dict[str, Any] = {}
        data = batches(60)
        data[55] = data[55]._replace(feats=data[55].feats * 100)
        callback = watch(tmp_path, told, stalled=1e-30)
        fit(Toy(nn.Linear(8, 8), lr=1e-6), data, callback, accumulate_grad_batches=2)
        # The loss of a step is that of its last batch.
        [row] = [json.loads(line) for line in (tmp_path / "findings.jsonl").read_text().splitlines()]
        assert row["step"] == 27 and row["ids"] == [f"u{i}" for i in range(216, 224)]

    def test_going_on_from_a_checkpoint_gives_the_same_findings(self, tmp_path):
        """A spike before the checkpoint, one after; the second process ends with what one process finds."""
        data = batches(60)
        for i in (25, 45):
            data[i] = data[i]._replace(feats=data[i].feats * 100)
        told: list[dict[str, Any]] = [{}, {}]
        for name, said in zip("ab", told, strict=True):
            (tmp_path / name).mkdir()
            torch.manual_seed(0)
            saver = pl.callbacks.ModelCheckpoint(tmp_path / name, every_n_train_steps=33)
            fit(Toy(nn.Linear(8, 8), lr=1e-6), data, watch(tmp_path / name, said, 10, stalled=1e-30), saver,
                enable_checkpointing=True)  # fmt: skip
        first = [(f["kind"], f["first_step"], f["last_step"], f["count"]) for f in told[0]["findings"]]
        assert first == [("loss_spike", 25, 45, 2)]
        told[1].clear()
        [saved] = (tmp_path / "b").glob("*.ckpt")
        again = watch(tmp_path / "b", told[1], 10, stalled=1e-30)
        loader = DataLoader(data[33:], batch_size=None)  # pyright: ignore
        trainer = pl.Trainer(max_steps=60, accelerator="cpu", logger=False, callbacks=[StepSeeds(1), again],
                             enable_progress_bar=False, enable_checkpointing=False)  # fmt: skip
        trainer.fit(Toy(nn.Linear(8, 8), lr=1e-6), loader, ckpt_path=saved, weights_only=False)
        assert [row["step"] for row in again.findings.rows] == [25, 45]


class TestBadInput:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("every", 0),
            ("looks", 0),
            ("max_findings", 0),
            ("max_incidents", -1),
            ("limits.window", 5),
            ("limits.spike", 0),
            ("limits.saturated_at", 1.0),
            ("limits.dead_share", 0),
            ("limits.vanishing", -1),
        ],
    )
    @pytest.mark.quick(3)
    def test_one_line_names_the_key(self, tmp_path, key, value):
        from asr_lab.build import call
        from asr_lab.errors import ConfigError
        from asr_lab.sweep.cell import resolved

        config = resolved(composed(f"detectors.{key}={value}"))
        with pytest.raises(ConfigError, match=key.rpartition(".")[2]) as error:
            call(config, "detectors", folder=tmp_path, tell=print)
        assert "\n" not in str(error.value)


def test_the_yaml_has_the_limits_of_these_tests():
    assert {k: v for k, v in composed().detectors.limits.items() if k != "_target_"} == LIMITS
