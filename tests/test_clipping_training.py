"""Every clipping choice inside trainings: accumulation, processes, resumption, scaled gradients, steps left out."""

import copy
import math
import multiprocessing
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asr_lab.base_task import Task
from asr_lab.build import make
from asr_lab.callbacks.checkpoint import place_of
from asr_lab.errors import ExplodedError
from asr_lab.optim.groups import parameter_groups
from asr_lab.optim.making import made
from asr_lab.paths import conf_dir

from .conftest import choices

ALL = choices("clipping")
# Values at which the choice has something to do in the small trainings here; a choice that is not here has its own.
BITING = {
    "agc": ["threshold=0.05"],
    "autoclip": ["percentile=50"],
    "median": ["factor=0.9", "window=6", "warmup=3"],
    "norm": ["threshold=0.2"],
    "per_layer": ["threshold=0.1"],
    "per_parameter": ["threshold=0.1"],
    "shear": ["keep=0.5"],
    "skip": ["threshold=0.8"],
    "soft": ["threshold=0.3"],
    "value": ["threshold=0.05"],
    "value_norm": ["first.threshold=0.05", "second.threshold=0.1"],
    "zclip": ["z_max=0.3", "warmup=3"],
}
# A fused kernel that leaves out a step by itself, another, and one without.
OPTIMIZERS = ("adamw", "sgd", "rmsprop")


def chosen(group: str, name: str, *changes: str):
    node = OmegaConf.merge(OmegaConf.load(conf_dir() / group / f"{name}.yaml"), OmegaConf.from_dotlist(list(changes)))
    return make({group: OmegaConf.to_container(node)}, group)


class Line(Task):
    """A small regression; a batch is (B, 4), three inputs and what is wanted."""

    def __init__(
        self, clipping: str, optimizer: str = "adamw", *changes: str, max_nonfinite_steps: int = 20, device: str = "cpu"
    ):
        super().__init__(
            optimizer=chosen("optimizer", optimizer, *changes),
            weight_decay=0.01,
            schedule=chosen("schedule", "constant"),
            clipper=chosen("clipping", clipping, *BITING.get(clipping, [])),
            max_nonfinite_steps=max_nonfinite_steps,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 6, device=device), nn.Tanh(), nn.Linear(6, 1, device=device))
        self.logged: list[dict[str, float]] = []

    def step(self, batch: Tensor, stage: str) -> Tensor:
        return (self.net(batch[:, :3]) - batch[:, 3:]).square().mean()

    def log_dict(self, dictionary, **how) -> None:
        self.logged.append({k.removeprefix("train/"): float(v) for k, v in dictionary.items()})

    def norms(self) -> Tensor:
        """(N, 2) before and after"""
        return torch.tensor([[row["grad_norm"], row["grad_norm_after"]] for row in self.logged])


def batches(n: int, size: int = 4) -> list[Tensor]:
    g = torch.Generator().manual_seed(1)
    found = torch.randn(n, size, 4, generator=g)
    found[:, :, 3] = 2 * found[:, :, :3].sum(2) * torch.rand(n, 1, generator=g)  # some steps are larger
    return list(found)


class Rows:
    """A loader that goes on inside an epoch."""

    def __init__(self, items: list[Tensor]):
        self.items, self.at = items, 0

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self):
        for i in range(self.at, len(self.items)):
            self.at = (i + 1) % len(self.items)
            yield self.items[i]

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def fit(task: Task, items, ckpt_path=None, **trainer) -> Task:
    quiet = {
        "logger": False, "enable_checkpointing": "callbacks" in trainer, "enable_progress_bar": False,
        "enable_model_summary": False, "accelerator": "cpu", "devices": 1, "max_epochs": 1,
    }  # fmt: skip
    loader = Rows(items) if isinstance(items, list) else items
    if ckpt_path:
        loader.load_state_dict(place_of(ckpt_path)[1])
    pl.Trainer(**quiet | trainer).fit(task, loader, ckpt_path=ckpt_path, weights_only=False)
    return task


def ready(task: Task) -> torch.optim.Optimizer:
    """Without Lightning: its optimizer, as configure_optimizers makes it."""
    task._trainer = SimpleNamespace(precision_plugin=None, accumulate_grad_batches=1)  # pyright: ignore
    if hasattr(task.clipper, "attach"):
        task.clipper.attach(task)
    return made(task.make_optimizer, parameter_groups(task, task.weight_decay), scaled=False, n_accumulated=1)


def driven(task: Task, items: list[Tensor], loss=None) -> tuple[Task, torch.optim.Optimizer]:
    optimizer = ready(task)
    for batch in items:
        take_step(task, optimizer, (loss or task.training_step)(batch, 0))
    return task, optimizer


def take_step(task: Task, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    task.configure_gradient_clipping(optimizer)
    optimizer.step()


def memory(task: Task, optimizer: torch.optim.Optimizer | None = None) -> list[Tensor]:
    """All that the next step goes by: weights, moments, what the clipper remembers"""
    state = [task.state_dict(), getattr(task.clipper, "state_dict", dict)(), optimizer and optimizer.state_dict()]
    return [torch.as_tensor(x).clone() for x in tree_leaves(state) if isinstance(x, (Tensor, float, int))]


def assert_same(a: list[Tensor], b: list[Tensor]) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def assert_it_bit(name: str, task: Task) -> None:
    clipped = task.counts["clipped"]
    assert (clipped == 0) if name == "none" else (clipped > 0 or name not in BITING)


@pytest.mark.parametrize("name", ALL)
class TestEveryChoice:
    @pytest.mark.quick(4)
    def test_two_half_batches_are_one(self, name):
        whole = fit(Line(name), batches(12))
        halves = fit(Line(name), [half for b in batches(12) for half in b.split(2)], accumulate_grad_batches=2)
        torch.testing.assert_close(whole.norms(), halves.norms(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(memory(whole), memory(halves), rtol=1e-3, atol=1e-5, equal_nan=True)
        assert whole.counts == halves.counts and whole.counts["steps"] == 12
        assert_it_bit(name, whole)

    @pytest.mark.quick(4)
    def test_goes_on_inside_an_epoch(self, name, tmp_path):
        items, epochs = batches(5), {"max_epochs": 3}
        whole = fit(Line(name), items, **epochs)
        keep = ModelCheckpoint(tmp_path, filename="at", every_n_train_steps=7, save_top_k=-1)
        fit(Line(name), items, max_steps=8, **epochs, callbacks=[keep])
        gone_on = fit(Line(name), items, ckpt_path=tmp_path / "at.ckpt", **epochs)
        assert len(gone_on.logged) == 8 and gone_on.counts == whole.counts
        assert gone_on.logged == whole.logged[7:]
        assert_same(memory(gone_on), memory(whole))

    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    @pytest.mark.parametrize("at", [0, 4])
    @pytest.mark.quick(26)
    def test_a_step_that_is_not_finite_has_not_been(self, name, optimizer, at):
        """Weights, moments, decay, the clipper: for kernels that leave it out and those that do not."""
        good = batches(8)
        expected, its = driven(Line(name, optimizer), good)
        for bad in (math.nan, math.inf, 1e30):  # the last one has finite elements but no finite norm
            spoilt = good[0].clone()
            spoilt[1, 3] = bad
            task, optim = driven(Line(name, optimizer), [*good[:at], spoilt, *good[at:]])
            assert_same(memory(task, optim), memory(expected, its))
            assert task.counts == {**expected.counts, "steps": 9, "nonfinite": 1, "nonfinite_longest": 1}
            before, after = task.norms()[at]
            assert not before.isfinite() and not after.isfinite()

    @pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
    def test_with_and_without_a_fused_kernel(self, name, optimizer):
        """One leaves out a step by itself, the other has its gradients taken."""
        items = batches(10)
        items[5] = items[5] * math.nan
        ends = [driven(Line(name, optimizer, f"fused={fused}"), items)[0] for fused in ("true", "false")]
        torch.testing.assert_close(memory(ends[0]), memory(ends[1]), rtol=1e-4, atol=1e-6, equal_nan=True)
        assert ends[0].counts == ends[1].counts

    def test_only_the_second_group_has_gradients(self, name):
        """Trap: looking at the first group only."""
        task = Line(name)
        biases = [p for n, p in task.named_parameters() if n.endswith("bias")]
        before = copy.deepcopy(task.state_dict())

        def loss(batch, _):
            return 50 * sum((b - batch.mean()).square().sum() for b in biases)

        task, optimizer = driven(task, batches(6), loss)
        assert optimizer.param_groups[1]["params"] == biases
        assert all(row["grad_norm"] > 1 for row in task.logged)
        assert_it_bit(name, task)
        for key, value in task.state_dict().items():
            moved = not torch.equal(value, before[key])
            assert moved == (key.endswith("bias") and task.counts["skipped"] < 6)

    @pytest.mark.quick(4)
    def test_scaled_gradients_are_unscaled_first(self, name):
        """float16 on a CPU: steps that overflow are left out and counted, the scale halves, nothing is remembered."""

        def half(items: list[Tensor], scale: float) -> tuple[Task, float]:
            scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
            task = fit(Line(name), items, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
            return task, scaler.get_scale()

        items = batches(30)
        task, scale = half(items, 2.0**24)
        assert scale == 2.0 ** (24 - task.counts["nonfinite"])
        lost = task.counts["nonfinite_longest"]  # the first steps
        assert lost > 2 and not task.norms()[:lost].isfinite().any()
        fresh, same = half(items[lost:], 2.0 ** (24 - lost))
        assert same == scale
        assert_same(memory(task), memory(fresh))
        full = fit(Line(name), items[lost:])  # float32
        # Norms are not those of the scaled gradients; weights drift apart by half precision's rounding.
        torch.testing.assert_close(fresh.norms()[:3, 0], full.norms()[:3, 0], rtol=2e-2, atol=0)
        assert_it_bit(name, task)


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_too_many_in_a_row_end_the_run(optimizer):
    good, bad = batches(1)[0], torch.full((4, 4), math.nan)
    fit(Line("norm", optimizer, max_nonfinite_steps=2), [bad, bad, good] * 3)
    task = Line("norm", optimizer, max_nonfinite_steps=2)
    with pytest.raises(
        ExplodedError, match=r"nan or inf in 3 steps in a row \(by step 4\); lower optimizer.lr"
    ) as error:
        fit(task, [good] + [bad] * 5)
    assert "\n" not in str(error.value)
    assert all(p.isfinite().all() for p in task.parameters())
    assert error.value.__cause__ is not error.value  # who walks the causes comes to an end


def test_an_explosion_that_no_look_saw_is_seen_at_the_end(monkeypatch):
    """As on a GPU, where most steps do not look."""
    real = Task._refuse_to_explode
    monkeypatch.setattr(Task, "configure_gradient_clipping", unseen(Task.configure_gradient_clipping, real))
    with pytest.raises(ExplodedError, match="in 3 steps in a row"):
        fit(Line("norm", max_nonfinite_steps=2), [torch.full((4, 4), math.nan)] * 3)


def unseen(hook, real):
    def without_looking(self, *args, **how):
        self._refuse_to_explode = lambda: None
        hook(self, *args, **how)
        del self._refuse_to_explode

    return without_looking


# Two processes


def in_two_processes(work, folder) -> list:
    """What `work(rank)` returns in each of two ranks, forked from this process, over gloo."""

    def rank_of(rank: int) -> None:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
        )
        torch.save(work(rank), folder / f"{rank}.pt")
        torch.distributed.destroy_process_group()

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=rank_of, args=(rank,)) for rank in range(2)]
    for p in processes:
        p.start()
    for p in processes:
        p.join(timeout=120)
    assert [p.exitcode for p in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


class Stepping(nn.Module):
    """A task's training step as a forward pass, for torch's wrapper."""

    def __init__(self, task: Task):
        super().__init__()
        self.task = task

    def forward(self, batch: Tensor, index: int) -> Tensor:
        return self.task.training_step(batch, index)


@pytest.fixture(scope="module")
def in_ranks(tmp_path_factory):
    """Of each choice and rank: memory, counts and log after steps on halves of the batches, one of them bad in one."""

    def work(rank: int) -> dict:
        return {name: trained_by(name, rank) for name in ALL}

    def trained_by(name: str, rank: int):
        task = Line(name)
        loss = DistributedDataParallel(Stepping(task))
        task, _ = driven(task, [b[rank::2] for b in batches_with_a_bad_row()], loss)
        return memory(task), task.counts, task.logged

    return in_two_processes(work, tmp_path_factory.mktemp("ranks"))


def batches_with_a_bad_row() -> list[Tensor]:
    items = batches(10)
    items[4][1, 0] = math.nan  # comes to the second of two ranks
    return items


@pytest.mark.parametrize("name", ALL)
def test_two_processes_decide_alike_and_as_one(name, in_ranks):
    (first, counts, logged), (second, other_counts, other_logged) = (rank[name] for rank in in_ranks)
    assert_same(first, second)
    assert counts == other_counts and str(logged) == str(other_logged)  # nan is not itself
    alone, _ = driven(Line(name), batches_with_a_bad_row())
    assert counts == alone.counts and counts["nonfinite"] == 1
    torch.testing.assert_close(first, memory(alone), rtol=1e-3, atol=1e-5, equal_nan=True)


class Dealt(Rows):
    """Every second row of each batch, by rank."""

    def __iter__(self):
        return (batch[torch.distributed.get_rank() :: 2] for batch in super().__iter__())


def test_lightning_in_two_processes_is_as_one(tmp_path):
    strategy = DDPStrategy(process_group_backend="gloo", start_method="fork")
    two = fit(Line("norm"), Dealt(batches(6)), strategy=strategy, devices=2)
    one = fit(Line("norm"), batches(6))
    torch.testing.assert_close(two.state_dict(), one.state_dict(), rtol=1e-4, atol=1e-6)


# No step waits for a GPU


class NoCopies(TorchDispatchMode):
    """Fails where numbers go between host and device: either would wait for the other."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if "copy" in func.name():
            places = {x.device.type for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)}
            assert len(places) < 2, f"{func}: between {' and '.join(sorted(places))}"
        return result


def on_a_gpu(name: str, optimizer: str) -> tuple[Task, torch.optim.Optimizer]:
    task = Line(name, optimizer, device="cuda")
    seen = []
    task.log_dict = lambda values, **how: seen.append(values)  # read later
    return task, ready(task)


def take_steps(task: Task, optimizer: torch.optim.Optimizer, n: int) -> None:
    for _ in range(n):
        for p in task.parameters():
            p.grad = torch.ones_like(p)
        task.configure_gradient_clipping(optimizer)
        optimizer.step()


@pytest.mark.parametrize("name", ALL)
def test_no_step_waits_for_a_pretended_gpu(name, monkeypatch):
    """Whatever would ask a GPU for a number (item, bool, a mask as an index) fails on tensors that have none."""
    monkeypatch.setattr("asr_lab.base_task.LOOK_EVERY", 4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        task, optim = on_a_gpu(name, "adamw")
        take_steps(task, optim, 1)  # what is remembered goes to the device
        with NoCopies():
            take_steps(task, optim, 2)
        with pytest.raises(DataDependentOutputException):  # the look for an explosion
            take_steps(task, optim, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ALL)
def test_no_step_waits_for_a_gpu(name):
    for optimizer in ("adamw", "sgd"):
        task, optim = on_a_gpu(name, optimizer)
        take_steps(task, optim, 3)
        torch.cuda.set_sync_debug_mode("error")
        try:
            take_steps(task, optim, 3)
        finally:
            torch.cuda.set_sync_debug_mode("default")
