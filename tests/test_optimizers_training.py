"""Optimizers in real trainings: two closures a step, averaged weights in checkpoints, loss scaling, two processes."""

import math

import pytest
import torch
from torch import nn

from asr_lab.base_task import Task
from asr_lab.errors import ConfigError
from asr_lab.evaluate import evaluate
from asr_lab.files import read_jsonl

from .conftest import choices, make_run, tiny
from .test_optimizers import ALL, CLOSURE, made, network, parameter_groups
from .test_training import compare_with_resumed

NEEDS_CLOSURE = [[f"optimizer={name}"] for name in sorted(CLOSURE)] + [
    ["optimizer=subgradient", "optimizer.rule=polyak"]
]
AVERAGED = ["optimizer=schedule_free_adamw", "optimizer=schedule_free_sgd optimizer.lr=0.1"]
AVERAGED += ["optimizer=subgradient optimizer.average=polynomial"]


@pytest.mark.parametrize("name", sorted(CLOSURE))
def test_two_closures_are_one_step(name, trained, monkeypatch):
    calls, real = [], Task.training_step
    monkeypatch.setattr(Task, "training_step", lambda self, *a: calls.append(1) or real(self, *a))
    run, result = trained(f"optimizer={name}", "encoder=bilstm")
    assert len(calls) == 2 * result["steps"]
    counts = torch.load(run.last_checkpoint, weights_only=False)["counts"]
    assert counts["steps"] == result["steps"]


@pytest.mark.parametrize("optimizer", NEEDS_CLOSURE, ids=" ".join)
def test_a_batch_in_parts_is_refused_before_training(optimizer, trained, monkeypatch):
    monkeypatch.setattr(Task, "training_step", lambda *a: pytest.fail("trained"))
    with pytest.raises(ConfigError, match=r"computes the loss of a step itself.*accumulate_grad_batches=1"):
        trained(*optimizer, "trainer.accumulate_grad_batches=2")


@pytest.mark.parametrize("optimizer", NEEDS_CLOSURE, ids=" ".join)
def test_a_scaled_loss_is_refused_before_training(optimizer, trained, monkeypatch):
    from pytorch_lightning.plugins.precision import Precision

    monkeypatch.setattr(Precision, "scaler", torch.amp.GradScaler("cpu"), raising=False)
    monkeypatch.setattr(Task, "training_step", lambda *a: pytest.fail("trained"))
    with pytest.raises(ConfigError, match=r"trainer.precision=16-mixed.*choose trainer.precision=bf16-mixed"):
        trained(*optimizer)


@pytest.mark.parametrize("place", [2, 3], ids=["while climbing", "at the worst place"])
def test_sam_and_a_gradient_that_is_not_finite(place, trained, monkeypatch):
    """At the first place the step is that of the second; at the second it is left out and counted."""
    real, seen = Task.training_step, []

    def training_step(self, batch, batch_idx):
        seen.append(1)
        loss = real(self, batch, batch_idx)
        return loss * math.nan if len(seen) - 1 == place else loss

    monkeypatch.setattr(Task, "training_step", training_step)
    run, result = trained("optimizer=sam", "encoder=bilstm")
    assert result["metrics"]["train/nonfinite"] == (1 if place == 3 else 0)
    weights = torch.load(run.last_checkpoint, weights_only=False)["state_dict"]
    assert all(torch.isfinite(w).all() for w in weights.values())


@pytest.mark.parametrize("optimizer", AVERAGED)
def test_the_averaged_weights_are_scored_and_kept(optimizer, trained, monkeypatch):
    at_scoring = []
    real = Task.on_validation_epoch_end

    def on_validation_epoch_end(self):
        at_scoring.append({k: v.clone() for k, v in self.state_dict().items()})
        real(self)

    monkeypatch.setattr(Task, "on_validation_epoch_end", on_validation_epoch_end)
    run, result = trained(*optimizer.split(), "encoder=bilstm", "schedule=constant", "trainer.max_epochs=3")
    monkeypatch.undo()
    best = torch.load(run.best_checkpoint, weights_only=False)
    epoch = result["best"]["epoch"]
    for key, value in best["state_dict"].items():
        assert torch.equal(value, at_scoring[epoch][key]), key
    [state] = best["optimizer_states"]
    assert not any(group["train_mode"] for group in state["param_groups"])
    other = "iterate" if "subgradient" in optimizer else "z"
    assert all(other in s for s in state["state"].values() if s.keys() - {"step"})
    assert evaluate(run, ["test"])["test"]["loss"] == pytest.approx(result["metrics"]["test/loss"], rel=1e-5)


def test_a_layer_with_sparse_gradients_is_named(trained, monkeypatch):
    real = nn.Embedding.__init__
    monkeypatch.setattr(nn.Embedding, "__init__", lambda self, *a, **k: real(self, *a, **(k | {"sparse": True})))
    with pytest.raises(ConfigError, match=r"^conf/optimizer: AdamW takes no sparse gradients, as decoder.*embedding.*"):
        trained("decoder=attention", "encoder=bilstm", "optimizer.fused=false")


@pytest.mark.parametrize("name", [n for n in ALL if n.split()[0] not in CLOSURE and n != "subgradient polyak"])
def test_a_scaled_loss_gives_the_same_step(name):
    """As Lightning does in 16-mixed: scale, unscale, step unless something was not finite."""
    nets = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        net, loss = network()
        optimizer = made(name, parameter_groups(net, 0.1))
        if hasattr(optimizer, "found_inf"):
            del optimizer.found_inf
        for step in range(3):
            optimizer.zero_grad()
            if scaler is None:
                if step != 1:  # the scaler will leave this one out
                    loss().backward()
                    optimizer.step()
                continue
            scaler.scale(loss() * (math.inf if step == 1 else 1.0)).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        nets.append(net)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


ODD = [
    "optimizer=sam",
    "optimizer=spsa",
    "optimizer=quantum",
    "optimizer=muon",
    "optimizer=lamb",
    "optimizer=prodigy",
    *AVERAGED,
]


@pytest.mark.slow
@pytest.mark.parametrize("within", [False, True], ids=["after an epoch", "within an epoch"])
@pytest.mark.parametrize("optimizer", ODD)
def test_resumed_equals_uninterrupted(optimizer, within, trained, tones, tmp_path):
    overrides = ["encoder=bilstm", "augment=specaugment_speed", "trainer.max_epochs=3", *optimizer.split()]
    whole_run, whole = trained(*overrides, name="whole")
    stop = whole["steps"] // 3 + 2
    often = [*tiny(tones, *overrides), *(["runtime.checkpoint_minutes=0.00001"] if within else [])]
    resumed = stop if within else whole["steps"] // 3
    compare_with_resumed(whole_run, whole, tmp_path / "cut", often, stop=stop, resumed=resumed)


@pytest.mark.slow
@pytest.mark.parametrize("name", choices("optimizer"))
def test_the_rate_of_the_yaml_learns(name, trained):
    run, _ = trained(f"optimizer={name}", "encoder=bilstm", "trainer.max_epochs=12")
    losses = [row["train/loss"] for row in read_jsonl(run.metrics_file) if "train/loss" in row]
    assert losses[-1] < (0.95 if name == "spsa" else 0.85) * losses[0]  # SPSA learns one number a step


def _two_losses(rank: int, folder: str, world: int) -> None:
    """One process of `world`: its own loss of the same weights, one step of each optimizer."""
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{folder}/place", rank=rank, world_size=world)
    ends = [1.0, 4.0]
    found = []
    for name in ("spsa", "subgradient polyak"):
        w = nn.Parameter(torch.tensor([0.5, 2.0]))
        optimizer = made(name, [w], "lr=0.5")

        def loss(w=w):
            mine = [torch.sum((w - end) ** 2) for end in (ends if world == 1 else [ends[rank]])]
            return sum(mine) / len(mine)

        def closure(w=w, loss=loss):
            w.grad = None
            value = loss()
            value.backward()
            if world > 1:  # what DDP does
                torch.distributed.all_reduce(w.grad)
                w.grad /= world
            return value

        for _ in range(3):
            optimizer.step(closure)
        found.append(w.detach())
    torch.save(found, f"{folder}/{world}.{rank}.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_losses_of_their_own_stay_together(tmp_path):
    torch.multiprocessing.start_processes(_two_losses, (str(tmp_path), 2), nprocs=2, start_method="spawn")
    _two_losses(0, str(tmp_path), 1)
    one, a, b = (torch.load(tmp_path / f"{name}.pt") for name in ("1.0", "2.0", "2.1"))
    for alone, first, second in zip(one, a, b, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-5)


def test_a_value_that_cannot_be_is_found_where_a_run_is_built(tones, tmp_path):
    from asr_lab.build import build

    run = make_run(tmp_path / "run", tiny(tones, "optimizer=sam", "optimizer.rho=0.0"))
    with pytest.raises(ConfigError, match=r"conf/optimizer: optimizer\.rho must be positive"):
        build(run.config)
