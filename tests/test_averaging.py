"""Averages of weights: their formulas, and that they are what is validated, scored and kept."""

import itertools
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from asr_lab.averaging.checkpoints import CheckpointAverage
from asr_lab.averaging.running import ExponentialAverage, UniformAverage, mean_of
from asr_lab.build import make
from asr_lab.errors import ConfigError, RunError
from asr_lab.evaluate import evaluate
from asr_lab.run import Run
from asr_lab.sweep.cell import resolved
from asr_lab.train import train

from .conftest import composed, make_run, tiny, tiny_lm
from .test_training import compare_with_resumed


class Net(torch.nn.Module):
    """With weights that are used twice, a count, and running statistics."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(3, 3)
        self.two = torch.nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.norm = torch.nn.BatchNorm1d(3)

    def move(self, generator):
        with torch.no_grad():
            for p in itertools.chain(self.parameters(), (b for b in self.buffers() if b.is_floating_point())):
                p.add_(torch.randn(p.shape, generator=generator))
            self.norm.num_batches_tracked += 1


def snapshot(module) -> dict:
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def averaged(averaging, n: int, steps_per_epoch: int = 4, seed: int = 0):
    """(net after n steps with its averaging, the states after each)"""
    net, generator, states = Net(), torch.Generator().manual_seed(seed), []
    averaging.begin(net, n, steps_per_epoch)
    for step in range(1, n + 1):
        net.move(generator)
        averaging.update(step)
        states.append(snapshot(net))
    return net, states


class TestAgainstTorch:
    @pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
    def test_exponential(self, decay):
        ours = ExponentialAverage(decay, warmup=False)
        net, states = averaged(ours, 12)
        copy = Net()
        theirs = AveragedModel(copy, avg_fn=get_ema_avg_fn(decay), use_buffers=True)
        for state in states:
            copy.load_state_dict(state)
            theirs.update_parameters(copy)
        ours.use()
        for (name, p), q in zip(net.named_parameters(), theirs.module.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=name)
        torch.testing.assert_close(net.norm.running_mean, theirs.module.norm.running_mean, rtol=1e-5, atol=1e-6)

    def test_uniform(self):
        ours = UniformAverage(start=0.5, every="epoch")
        net, states = averaged(ours, 22)  # epochs of 4; the last one has 2 steps
        copy = Net()
        theirs = AveragedModel(copy)
        for step in (12, 16, 20, 22):
            copy.load_state_dict(states[step - 1])
            theirs.update_parameters(copy)
        ours.use()
        assert ours.n == 4
        for p, q in zip(net.parameters(), theirs.module.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_a_young_exponential_average_forgets_sooner():
    ours, x = ExponentialAverage(decay=0.5, warmup=True), 0.0
    net = torch.nn.Linear(1, 1, bias=False)
    ours.begin(net, 20, 5)
    for step in range(1, 21):
        torch.nn.init.constant_(net.weight, step)
        ours.update(step)
        n = step - 1  # sets of weights before
        decay = min(0.5, (1 + n) / (10 + n)) if n else 0.0
        x = decay * x + (1 - decay) * step
    ours.use()
    assert net.weight.item() == pytest.approx(x, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 30),
    start=st.floats(0, 0.99),
    every=st.sampled_from(["step", "epoch"]),
    steps_per_epoch=st.integers(1, 8),
)
def test_a_uniform_average_is_the_mean_of_what_counts(n, start, every, steps_per_epoch):
    ours = UniformAverage(start, every)
    net, states = averaged(ours, n, steps_per_epoch)
    unit = steps_per_epoch if every == "epoch" else 1
    counted = [s for i, s in enumerate(states, 1) if i >= round(start * n) and (i % unit == 0 or i == n)]
    assert ours.n == len(counted) >= 1
    ours.use()
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            want = torch.stack([s[name].double() for s in counted]).mean(0)
            torch.testing.assert_close(value.double(), want, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(value, states[-1][name])


def test_the_module_gets_its_own_weights_back_to_the_bit():
    averaging = ExponentialAverage(0.9, warmup=False)
    net, states = averaged(averaging, 5)
    averaging.use()
    mean = snapshot(net)
    averaging.use()  # once more changes nothing
    assert same(snapshot(net), mean) and not same(mean, states[-1])
    averaging.release()
    averaging.release()
    assert same(snapshot(net), states[-1])
    averaging.use()
    assert same(snapshot(net), mean)


@pytest.mark.parametrize("lent", [False, True])
def test_a_checkpoint_has_the_average_for_users_and_both_for_going_on(lent):
    averaging = ExponentialAverage(0.9, warmup=False)
    net, states = averaged(averaging, 5)
    averaging.use()
    mean = snapshot(net)
    if not lent:
        averaging.release()
    checkpoint = {"state_dict": net.state_dict()}
    averaging.save(checkpoint)
    checkpoint = {k: v if k != "state_dict" else dict(v) for k, v in checkpoint.items()}
    assert same(checkpoint["state_dict"], mean)
    other, again = Net(), ExponentialAverage(0.9, warmup=False)
    saved = torch.load(_stored(checkpoint), weights_only=False)
    again.load(saved)
    other.load_state_dict(saved["state_dict"])
    assert same(snapshot(other), states[-1]) and again.n == 5
    again.begin(other, 10, 4)
    averaging.release()
    generators = [torch.Generator().manual_seed(9) for _ in range(2)]
    for one, module, generator in ((averaging, net, generators[0]), (again, other, generators[1])):
        module.move(generator)
        one.update(6)
        one.use()
    assert same(snapshot(net), snapshot(other))


def _stored(checkpoint):
    import io

    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    return file


def test_before_the_first_average_nothing_is_lent_or_saved():
    averaging = UniformAverage(0.5, "step")
    net = Net()
    averaging.begin(net, 10, 5)
    before = snapshot(net)
    averaging.update(1)
    averaging.use()
    checkpoint = {"state_dict": net.state_dict()}
    averaging.save(checkpoint)
    assert averaging.n == 0 and same(snapshot(net), before) and checkpoint.keys() == {"state_dict"}


def test_half_precision_weights_are_averaged_in_single():
    averaging, net = ExponentialAverage(0.999, warmup=False), torch.nn.Linear(1, 1, bias=False).bfloat16()
    averaging.begin(net, 1000, 10)
    torch.nn.init.constant_(net.weight, 1.0)
    averaging.update(1)
    torch.nn.init.constant_(net.weight, 2.0)
    for step in range(2, 1000):
        averaging.update(step)  # in bfloat16, 1 + 0.001 would be 1
    averaging.use()
    assert net.weight.dtype == torch.bfloat16
    assert net.weight.item() == pytest.approx(2 - 0.999**998, abs=0.01)


class TestCheckpoints:
    def test_which_count(self):
        scores = {10: 0.5, 20: 0.3, 30: float("nan"), 40: 0.3, 50: 0.4}
        assert CheckpointAverage(2, "best", False).chosen(scores) == [20, 40]
        assert CheckpointAverage(3, "best", False).chosen(scores) == [20, 40, 50]
        assert CheckpointAverage(9, "best", False).chosen(scores) == [10, 20, 30, 40, 50]
        assert CheckpointAverage(2, "last", False).chosen(scores) == [40, 50]

    def test_the_mean_of_states(self):
        states = [snapshot(Net()) for _ in range(5)]
        states[-1]["norm.num_batches_tracked"] += 7
        mean = mean_of(iter(states))
        torch.testing.assert_close(mean["one.weight"], torch.stack([s["one.weight"] for s in states]).mean(0))
        assert mean["norm.num_batches_tracked"] == 7
        assert same(mean_of([states[0]] * 3), states[0])

    @pytest.mark.parametrize(("choose", "keep"), [("best", "true"), ("last", "false")])
    def test_in_training(self, choose, keep, trained):
        overrides = [
            "averaging=checkpoints", "averaging.n_checkpoints=2", f"averaging.choose={choose}",
            f"averaging.keep_files={keep}", "encoder=quartznet", "trainer.max_epochs=4",
        ]  # fmt: skip
        run, result = trained(*overrides)
        made_of = result["averaged"]["checkpoints"]
        n = result["steps"] // 4
        files = sorted(p.name for p in run.checkpoints.glob("mean.*"))
        best = torch.load(run.best_checkpoint, weights_only=False)["state_dict"]
        if keep == "true":
            assert files == sorted(f"mean.{c['step']}.ckpt" for c in made_of)
            states = [torch.load(run.checkpoints / name, weights_only=False)["state_dict"] for name in files]
            want = torch.stack([s[_weight(s)] for s in states]).mean(0)
            torch.testing.assert_close(best[_weight(best)], want)
        else:
            assert not files and [c["step"] for c in made_of] == [3 * n, 4 * n]
        assert len(made_of) == 2 and all(c["val/wer"] >= 0 for c in made_of)
        assert result["averaged"]["single_best"]["val/wer"] <= min(c["val/wer"] for c in made_of)
        _is_what_is_scored(run, result)


def _weight(state: dict) -> str:
    return next(k for k in state if k.startswith("encoder") and state[k].ndim > 1)


def _is_what_is_scored(run: Run, result: dict) -> None:
    """best.ckpt, loaded by those who know nothing of averages, has the scores of the run."""
    answers = evaluate(Run.open(run.folder), ["val", "test"])
    for split in ("val", "test"):
        for name in ("wer", "cer", "loss"):
            assert answers[split][name] == pytest.approx(result["metrics"][f"{split}/{name}"], rel=1e-5)


RUNNING = {
    "ema": ["averaging=ema", "averaging.decay=0.8"],
    "swa": ["averaging=swa", "averaging.start=0.5"],
    "polyak": ["averaging=polyak"],
}


@pytest.mark.parametrize("name", ["ema", "swa", pytest.param("polyak", marks=pytest.mark.slow)])
def test_averages_are_validated_scored_and_kept(name, trained, monkeypatch):
    """Against averages made by hand of the weights after each step."""
    from asr_lab.base_task import Task

    after, validated, real = [], [], Task.optimizer_step
    real_validation = Task.on_validation_epoch_start

    def optimizer_step(self, *args, **kwargs):
        real(self, *args, **kwargs)
        after.append(snapshot(self))

    def on_validation_epoch_start(self):
        real_validation(self)
        validated.append(snapshot(self))

    monkeypatch.setattr(Task, "optimizer_step", optimizer_step)
    monkeypatch.setattr(Task, "on_validation_epoch_start", on_validation_epoch_start)
    run, result = trained(*RUNNING[name], "encoder=quartznet", "trainer.max_epochs=4")
    n, last = result["steps"] // 4, torch.load(run.last_checkpoint, weights_only=False)
    key = _weight(last["state_dict"])
    if name == "ema":
        want = after[0][key]
        for i, state in enumerate(after[1:], 1):
            decay = min(0.8, (1 + i) / (10 + i))
            want = decay * want + (1 - decay) * state[key]
    else:
        counted = after[2 * n - 1 :: n] if name == "swa" else after[2 * n - 1 :]
        want = torch.stack([state[key] for state in counted]).mean(0)
    torch.testing.assert_close(last["state_dict"][key], want, rtol=1e-4, atol=1e-6)
    assert same(last["averaging"]["trained"], {k: v for k, v in after[-1].items() if v.is_floating_point()})
    # Of the four validations in training, the last was of the average; before the first one, of what there was.
    assert torch.equal(validated[3][key], last["state_dict"][key])
    assert torch.equal(validated[0][key], after[n - 1][key]) == (name != "ema")
    assert result["averaged"]["n"] >= 1
    assert result["best"]["step"] >= (n if name == "ema" else 2 * n)  # only averages are candidates
    assert not torch.equal(after[n][key], after[n - 1][key])  # training went on from its own weights
    best = torch.load(run.best_checkpoint, weights_only=False)
    assert any(same(best["state_dict"], state) for state in validated)
    _is_what_is_scored(run, result)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ema", "checkpoints", "swa", "polyak"])
def test_resumed_equals_uninterrupted(name, trained, tones, tmp_path):
    overrides = RUNNING.get(name, ["averaging=checkpoints", "averaging.n_checkpoints=2"])
    overrides = [*overrides, "encoder=quartznet", "trainer.max_epochs=4"]
    whole_run, whole = trained(*overrides, name="whole")
    stop = 3 * whole["steps"] // 4 + 2  # after the first averages, within an epoch
    often = [*tiny(tones, *overrides), "runtime.checkpoint_minutes=0.00001"]
    compare_with_resumed(whole_run, whole, tmp_path / "cut", often, stop=stop, resumed=stop)
    cut = Run.open(tmp_path / "cut")
    assert cut.result()["averaged"] == whole["averaged"]
    saved = [torch.load(r.best_checkpoint, weights_only=False)["state_dict"] for r in (whole_run, cut)]
    assert same(*saved)


def test_a_mean_that_was_killed_half_way_is_made_again(tones, tmp_path, monkeypatch):
    """Killed while it is scored, when the files are all there still."""
    from asr_lab import train as module

    run = make_run(tmp_path / "run", tiny(tones, "averaging=checkpoints", "encoder=bilstm", "trainer.max_epochs=3"))
    real = module.score_best
    monkeypatch.setattr(module, "score_best", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(run)
    first = torch.load(run.best_checkpoint, weights_only=False)
    assert len(list(run.checkpoints.glob("mean.*"))) == 3
    monkeypatch.setattr(module, "score_best", real)
    result = train(run)
    assert result["status"] == "done" and not list(run.checkpoints.glob("mean.*"))
    again = torch.load(run.best_checkpoint, weights_only=False)
    assert same(first["state_dict"], again["state_dict"]) and first["averaging"] == again["averaging"]


def test_a_lost_checkpoint_is_one_line(tones, tmp_path, monkeypatch):
    from asr_lab.callbacks.averaging import KeptCheckpoints

    run = make_run(tmp_path / "run", tiny(tones, "averaging=checkpoints", "encoder=bilstm", "trainer.max_epochs=2"))
    real = KeptCheckpoints.average

    def average(self, *args):
        sorted(self.folder.glob("mean.*"))[0].unlink()
        real(self, *args)

    monkeypatch.setattr(KeptCheckpoints, "average", average)
    with pytest.raises(RunError, match=r"mean\.\d+\.ckpt: cannot be averaged"):
        train(run)


@pytest.mark.parametrize("name", ["ema", "swa", "checkpoints"])
@pytest.mark.slow
def test_training_that_stops_inside_an_epoch(name, trained):
    late = ["averaging.start=0.9"] if name == "swa" else []
    run, result = trained(f"averaging={name}", *late, "encoder=bilstm", "trainer.max_epochs=3", "trainer.max_steps=7")
    assert result["steps"] == 7 and result["averaged"]
    if name == "swa":
        assert result["averaged"] == {"n": 1} and result["best"]["step"] == 7
    if name == "checkpoints":
        assert [c["step"] for c in result["averaged"]["checkpoints"]][-1] == 7
    _is_what_is_scored(run, result)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["averaging=checkpoints", "schedule=plateau", "schedule.patience=0", "schedule.threshold=0.9"],
        ["averaging=ema", "schedule=polyak", "schedule.c=500", "optimizer=sgd"],
    ],
    ids=["checkpoints", "ema"],
)
def test_two_processes_agree(overrides, tones, tmp_path):
    """On the averaged weights at the end, and on the learning rate."""
    more = ["encoder=bilstm", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=3"]
    run = make_run(tmp_path / "run", tiny(tones, *more, *overrides))
    script = tmp_path / "both.py"
    script.write_text(
        "import sys, torch\n"
        "from asr_lab.base_task import Task\n"
        "from asr_lab.train import main\n"
        "def on_fit_end(self):\n"
        "    rate = float(self.trainer.callback_metrics['train/lr'])\n"
        "    weights = {k: p.detach() for k, p in self.named_parameters()}\n"  # buffers are those of rank 0
        "    torch.save((rate, weights), f'{sys.argv[2]}.{self.trainer.global_rank}')\n"
        "Task.on_fit_end = on_fit_end\n"
        "sys.exit(main(sys.argv[1]))\n"
    )
    command = [sys.executable, str(script), str(run.folder), str(tmp_path / "end")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert run.result()["status"] == "done" and run.result()["averaged"]
    (rate, state), (other_rate, other) = (torch.load(tmp_path / f"end.{rank}") for rank in (0, 1))
    assert rate == other_rate < composed(*overrides).optimizer.lr
    assert same(state, other)


def test_a_language_models_weights(tones, tmp_path):
    run = make_run(tmp_path / "run", tiny_lm(tones, "averaging=ema"), config="lm")
    assert train(run)["averaged"]["n"] >= 1


def test_none_says_so(trained):
    run, result = trained("encoder=bilstm", "trainer.max_steps=1")
    assert result["averaged"] is None
    assert "averaging" not in torch.load(run.best_checkpoint, weights_only=False)


def test_it_is_part_of_the_identity(tones, tmp_path):
    prints = {make_run(tmp_path / n, tiny(tones, f"averaging={n}")).fingerprint for n in ("none", "ema", "swa")}
    assert len(prints) == 3


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_an_optimizer_that_averages_itself_is_refused(name, tones, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", tiny(tones, f"averaging={name}", "encoder=bilstm"))
    for mode in ("train", "eval"):
        monkeypatch.setattr(torch.optim.AdamW, mode, lambda self: None, raising=False)
    with pytest.raises(ConfigError, match="AdamW holds an average of the weights itself; averaging=none"):
        train(run)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["averaging=ema", "averaging.decay=1.0"], "averaging.decay is at least 0 and below 1, 1.0 came"),
        (["averaging=swa", "averaging.start=1.0"], "averaging.start is a share of the training"),
        (["averaging=polyak", "averaging.every=day"], "averaging.every=day; choose from: step, epoch"),
        (["averaging=checkpoints", "averaging.n_checkpoints=0"], "averaging.n_checkpoints must be at least 1, 0 came"),
        (["averaging=checkpoints", "averaging.choose=all"], "averaging.choose=all; choose from: best, last"),
    ],
)
def test_values_that_cannot_be_are_one_line(overrides, says):
    with pytest.raises(ConfigError) as error:
        make(resolved(composed(*overrides)), "averaging")
    assert says in str(error.value) and "\n" not in str(error.value)
