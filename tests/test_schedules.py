"""Schedules of the learning rate: against their formulas, torch's, and the training that they belong to."""

import functools
import math
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import LambdaLR

from asr_lab.build import make
from asr_lab.errors import ConfigError
from asr_lab.files import read_jsonl
from asr_lab.optim.schedules import Eden, Exponential, Noam, OneCycle, WarmupCosine, WarmupLinear, Wsd
from asr_lab.optim.told import Plateau, Polyak, set_lr
from asr_lab.run import Run
from asr_lab.sweep.cell import resolved
from asr_lab.train import train

from .conftest import choices, composed, make_run, tiny
from .test_training import compare_with_resumed

NAMES = choices("schedule")


@functools.cache
def config(*overrides: str) -> dict:
    return resolved(composed(*overrides))


def schedule(name: str, *overrides: str, n_steps: int = 100, steps_per_epoch: int = 10):
    made = make(config(f"schedule={name}", *overrides), "schedule")
    made.begin(n_steps, steps_per_epoch)
    return made


def values(factor, n: int = 100) -> list[float]:
    return [factor(step) for step in range(n)]


def torchs(make_scheduler, n: int = 100) -> list[float]:
    """The learning rates, from 1, of a scheduler of torch's"""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = make_scheduler(optimizer), []
    for _ in range(n):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(n_steps=st.integers(1, 500), steps_per_epoch=st.integers(1, 60), beyond=st.integers(0, 20))
def test_a_factor_is_between_0_and_1_at_any_length(name, n_steps, steps_per_epoch, beyond):
    factor = schedule(name, n_steps=n_steps, steps_per_epoch=steps_per_epoch)
    assert all(0 <= factor(step) <= 1 + 1e-12 for step in range(n_steps + beyond + 1))
    assert factor(0) > 0


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("constant", {0: 1.0, 99: 1.0, 100: 1.0}),
        ("warmup_cosine", {0: 0.1, 9: 1.0, 10: 1.0, 55: 0.505, 100: 0.01, 500: 0.01}),
        ("warmup_linear", {0: 0.1, 9: 1.0, 10: 1.0, 55: 0.5, 100: 0.0, 500: 0.0}),
        ("noam", {0: 0.1, 9: 1.0, 39: 0.5, 89: 1 / 3}),
        ("one_cycle", {0: 0.04, 29: 1.0, 64: 0.5, 99: 4e-6, 100: 4e-6}),
        ("wsd", {0: 0.2, 4: 1.0, 80: 1.0, 90: 0.5, 99: 0.05, 100: 0.0}),
        ("eden", {0: 0.5, 60: 0.56 * (1 + 0.012**2) ** -0.25 * 2**-0.25}),
        ("exponential", {0: 1.0, 9: 1.0, 10: 0.95, 99: 0.95**9}),
        ("plateau", {0: 0.2, 4: 1.0, 99: 1.0}),
        ("polyak", {0: 1.0, 99: 1.0}),
    ],
)
def test_known_values_of_every_choice(name, known):
    factor = schedule(name)
    assert {step: factor(step) for step in known} == pytest.approx(known, abs=1e-5)


def test_every_choice_has_known_values():
    [mark] = test_known_values_of_every_choice.pytestmark
    assert {name for name, _ in mark.args[1]} == set(NAMES)


class TestAgainstTorch:
    def test_cosine(self):
        factor = WarmupCosine(warmup=0.0, final=0.1, every="step")
        factor.begin(100, 10)
        theirs = torchs(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=100, eta_min=0.1))
        assert values(factor) == pytest.approx(theirs)

    def test_linear_after_a_rise(self):
        factor = WarmupLinear(warmup=0.2, final=0.25, every="step")
        factor.begin(100, 10)

        def both(o):
            rise = torch.optim.lr_scheduler.LinearLR(o, 1 / 20, 1.0, total_iters=19)
            fall = torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.25, total_iters=80)
            return torch.optim.lr_scheduler.SequentialLR(o, [rise, fall], milestones=[20])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SequentialLR's own step with an epoch
            assert values(factor) == pytest.approx(torchs(both))

    @pytest.mark.parametrize(("warmup", "n"), [(0.3, 100), (0.25, 40), (0.5, 7)])
    def test_one_cycle(self, warmup, n):
        factor = OneCycle(warmup=warmup, initial=0.04, final=4e-6, every="step")
        factor.begin(n, 10)

        def theirs(o):
            return torch.optim.lr_scheduler.OneCycleLR(
                o, 1.0, total_steps=n, pct_start=warmup, div_factor=25, final_div_factor=1e4, cycle_momentum=False
            )

        assert values(factor, n) == pytest.approx([*torchs(theirs, n - 1), 4e-6])

    def test_exponential(self):
        factor = Exponential(gamma=0.9, every="step")
        theirs = torchs(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9))
        assert values(factor) == pytest.approx(theirs)

    @settings(max_examples=60, deadline=None)
    @given(
        scores=st.lists(st.floats(0.0, 10.0) | st.just(math.nan), min_size=1, max_size=40),
        mode=st.sampled_from(["min", "max"]),
        threshold_mode=st.sampled_from(["rel", "abs"]),
        threshold=st.sampled_from([0.0, 1e-3, 0.3]),
        patience=st.integers(0, 4),
        cooldown=st.integers(0, 3),
    )
    def test_plateau(self, scores, mode, threshold_mode, threshold, patience, cooldown):
        ours = Plateau("val/loss", mode, 0.5, patience, threshold, threshold_mode, cooldown, minimum=0.02, warmup=0.0)
        ours.begin(100, 10)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode, 0.5, patience, threshold, threshold_mode, cooldown, min_lr=0.02
        )
        for step, score in enumerate(scores, 1):
            theirs.step(score)
            ours.by_scores({"val/loss": score, "val/wer": 0.0}, step)
            assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_eden_is_icefalls():
    """Base factors of the paper's recipe, and the rise from warmup_start."""
    factor = Eden(warmup_start=0.5, warmup_steps=500, half_steps=7500, half_epochs=3.5)
    factor.begin(20_000, 1000)

    def formula(batch, epoch):
        rise = 1.0 if batch >= 500 else 0.5 + 0.5 * batch / 500
        steps = ((batch**2 + 7500**2) / 7500**2) ** -0.25
        return rise * steps * ((epoch**2 + 3.5**2) / 3.5**2) ** -0.25

    for batch in (0, 1, 250, 499, 500, 999, 1000, 7500, 19_999):
        assert factor(batch) == pytest.approx(formula(batch, batch // 1000))


def test_noam_is_the_papers_up_to_scale():
    factor = Noam(warmup=0.2, every="step")
    factor.begin(200, 10)
    theirs = [512**-0.5 * min(s**-0.5, s * 40**-1.5) for s in range(1, 201)]
    assert values(factor, 200) == pytest.approx([x / max(theirs) for x in theirs])
    assert max(range(200), key=factor) == 39


@pytest.mark.parametrize("name", [n for n in NAMES if "every" in composed(f"schedule={n}").schedule])
def test_by_epoch_the_factor_stands_still_within_one_and_the_last_may_be_cut_short(name):
    by_epoch = schedule(name, "schedule.every=epoch", n_steps=95, steps_per_epoch=10)
    over_epochs = schedule(name, "schedule.every=step", n_steps=10, steps_per_epoch=1)
    for step in range(95):
        assert by_epoch(step) == over_epochs(step // 10)
    assert len({by_epoch(step) for step in range(95)}) > 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.floats(0, 0.9), st.floats(0, 1))
def test_up_once_down_once(n, warmup, final):
    for factor in (WarmupCosine(warmup, final, "step"), WarmupLinear(warmup, final, "step"), Noam(warmup, "step"),
                   Wsd(warmup, (1 - warmup) / 2, final, "step")):  # fmt: skip
        factor.begin(n, 1)
        found = values(factor, n)
        peak = found.index(max(found))
        assert found[peak] == pytest.approx(1.0)
        assert all(a <= b + 1e-12 for a, b in pairwise(found[: peak + 1]))
        assert all(a >= b - 1e-12 for a, b in pairwise(found[peak:]))


class TestPolyak:
    def test_the_formula(self):
        step = Polyak(best_loss=0.5, c=2.0)
        assert 0.1 * step.by_gradient(0.1, 2.5, 10.0) == pytest.approx(2.0 / (2.0 * 100.0))
        assert step.by_gradient(0.1, 2.5, 1.0) == 1.0  # the bound
        assert step.by_gradient(0.1, 0.4, 1.0) == 0.0  # better than the best
        assert step.by_gradient(0.1, 2.5, 0.0) == 1.0
        assert step.by_gradient(0.1, math.nan, 1.0) == step.by_gradient(0.1, 1.0, math.inf) == 0.0

    def test_it_solves_a_quadratic_whose_curvature_it_does_not_know(self):
        """f = a w^2 / 2: with c = 1/2 each step is 1/a, to the optimum at once; with c = 1 it halves the way."""
        for c, left in ((0.5, 0.0), (1.0, 0.5)):
            w = torch.nn.Parameter(torch.tensor([3.0]))
            optimizer = torch.optim.SGD([w], lr=1e6)
            scheduler = LambdaLR(optimizer, Polyak(0.0, c))
            loss = 0.5 * 7.3 * w.square().sum()
            loss.backward()
            step = functools.partial(Polyak(0.0, c).by_gradient, loss=loss.item(), norm=w.grad.norm().item())
            set_lr(scheduler, step)
            optimizer.step()
            assert w.item() == pytest.approx(3.0 * left, abs=1e-5)

    def test_in_training(self, trained):
        """Accumulated batches: the loss is their mean, as the gradient is; the bound is the optimizer's lr."""
        overrides = ["schedule=polyak", "optimizer=sgd", "optimizer.lr=0.5", "clipping=none", "schedule.c=0.3"]
        run, result = trained(
            "encoder=bilstm", *overrides, "trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=1",
            "optimizer.fused=false",
        )  # fmt: skip
        rows = [r for r in read_jsonl(run.metrics_file) if "train/lr" in r]
        assert len(rows) == result["steps"]
        sizes = [row["train/lr"] * 0.3 * row["train/grad_norm"] ** 2 for row in rows]
        assert all(0 < row["train/lr"] <= 0.5 for row in rows) and any(row["train/lr"] < 0.499 for row in rows)
        # What the step size was made of lies among the losses of the two batches; the last of them is logged.
        losses = [row["train/loss"] for row in rows]
        inside = [(size, loss) for size, loss, row in zip(sizes, losses, rows, strict=True) if row["train/lr"] < 0.499]
        assert all(size == pytest.approx(loss, rel=0.4) for size, loss in inside)


def rates(run: Run) -> list[tuple[int, float]]:
    return [(r["step"], r["train/lr"]) for r in read_jsonl(run.metrics_file) if "train/lr" in r]


PLATEAU = [
    "encoder=bilstm",
    "schedule=plateau",
    "schedule.monitor=val/ser",
    "schedule.patience=0",
    "schedule.threshold=0.9",  # nothing is an improvement
    "schedule.warmup=0.3",
    "trainer.max_epochs=4",
    "trainer.log_every_n_steps=1",
]


@pytest.mark.slow
def test_plateau_in_training_and_resumed(trained, tones, tmp_path):
    run, result = trained(*PLATEAU, name="whole")
    n = result["steps"] // 4
    found = dict(rates(run))
    lr = composed("schedule=plateau").optimizer.lr
    steps = sorted(found)
    offset = steps[0]
    by_epoch = [{found[offset + e * n + i] for i in range(n)} for e in range(4)]
    # The first validation lies in the warm-up (0.3 of 4 epochs); the second sets the mark, the third falls short.
    assert max(by_epoch[1]) == pytest.approx(lr)
    assert [*by_epoch[2], *by_epoch[3]] == pytest.approx([lr, lr / 2])
    compare_with_resumed(run, result, tmp_path / "cut", tiny(tones, *PLATEAU), stop=3 * n + 1, resumed=3 * n)


@pytest.mark.parametrize("changes", [[], ["trainer.accumulate_grad_batches=2"], ["trainer.max_steps=5"]], ids=str)
@pytest.mark.slow
def test_a_training_ends_where_its_schedule_ends(changes, trained):
    """A line to 0 over the steps that there really are."""
    overrides = ["encoder=bilstm", "schedule=warmup_linear", "schedule.warmup=0.0", "trainer.log_every_n_steps=1"]
    run, result = trained(*overrides, "trainer.max_epochs=3", *changes)
    lr, n = composed().optimizer.lr, result["steps"]
    assert [rate for _, rate in rates(run)] == pytest.approx([lr * (1 - i / n) for i in range(n)])


@pytest.mark.slow
def test_resumed_within_an_epoch_of_a_schedule_by_epochs(trained, tones, tmp_path):
    overrides = ["encoder=bilstm", "schedule=exponential", "trainer.max_epochs=3", "trainer.log_every_n_steps=1"]
    run, result = trained(*overrides, name="whole")
    stop = result["steps"] // 3 + 2
    often = [*tiny(tones, *overrides), "runtime.checkpoint_minutes=0.00001"]
    compare_with_resumed(run, result, tmp_path / "cut", often, stop=stop, resumed=stop)


def test_a_monitor_that_nothing_logs_is_found_before_training(tones, tmp_path):
    run = make_run(tmp_path / "run", tiny(tones, "schedule=plateau", "schedule.monitor=val/los"))
    with pytest.raises(
        ConfigError, match=r"^schedule.monitor=val/los: no validation logs it; did you mean 'val/loss'?"
    ):
        train(run)
    assert run.result()["status"] == "failed" and not read_jsonl(run.metrics_file)


def test_a_training_without_end_is_one_line(tones, tmp_path):
    run = make_run(tmp_path / "run", tiny(tones, "trainer.max_epochs=-1"))
    with pytest.raises(ConfigError, match="max_epochs and max_steps are both -1"):
        train(run)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["schedule=warmup_cosine", "schedule.warmup=1.0"], "schedule.warmup is a share, at least 0 and below 1, 1.0"),
        (["schedule=noam", "schedule.warmup=-0.1"], "schedule.warmup is a share, at least 0 and below 1, -0.1 came"),
        (["schedule=warmup_linear", "schedule.final=2"], "schedule.final is a share of the peak learning rate"),
        (["schedule=one_cycle", "schedule.initial=1.5"], "schedule.initial is a share of the peak learning rate"),
        (["schedule=one_cycle", "schedule.warmup=nan"], "schedule.warmup is a share"),
        (["schedule=wsd", "schedule.decay=0.96"], "schedule.decay is above 0 and at most 1 - schedule.warmup"),
        (["schedule=wsd", "schedule.every=week"], "schedule.every=week; choose from: step, epoch"),
        (["schedule=eden", "schedule.half_epochs=0"], "half_steps and half_epochs are positive"),
        (["schedule=exponential", "schedule.gamma=1.1"], "schedule.gamma is above 0 and at most 1, 1.1 came"),
        (["schedule=plateau", "schedule.mode=most"], "schedule.mode=most; choose from: min, max"),
        (["schedule=plateau", "schedule.threshold_mode=x"], "schedule.threshold_mode=x; choose from: rel, abs"),
        (["schedule=plateau", "schedule.factor=1.0"], "schedule.factor is above 0 and below 1, 1.0 came"),
        (["schedule=plateau", "schedule.patience=-1"], "patience, cooldown and threshold are not negative"),
        (["schedule=plateau", "schedule.minimum=-1"], "schedule.minimum is a share of the peak learning rate"),
        (["schedule=polyak", "schedule.c=0"], "schedule: c is positive"),
    ],
)
@pytest.mark.quick(5)
def test_values_that_cannot_be_are_one_line(overrides, says):
    """Found when the part is made, before there is a corpus."""
    with pytest.raises(ConfigError) as error:
        make(resolved(composed(*overrides)), "schedule")
    assert says in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("conf/schedule: ")
