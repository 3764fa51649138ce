"""Toy landscapes: their known answers, and runs on them from the command line to the report."""

import itertools
import json
import math
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import call
from asr_lab.build_toy import build_toy
from asr_lab.clipping.norm import NormClipping
from asr_lab.errors import ConfigError, ExplodedError
from asr_lab.files import read_jsonl
from asr_lab.landscapes import generator_of
from asr_lab.landscapes.absolute import L1Regression
from asr_lab.landscapes.copy import CopyTask
from asr_lab.landscapes.quadratic import HeavyTailed, IllConditioned, symmetric_stable
from asr_lab.optim.subgradient import Subgradient
from asr_lab.run import Run
from asr_lab.sweep.cell import resolved
from asr_lab.train import train

from .conftest import choices, composed, make_run, only_line
from .test_training import interrupted_at

LANDSCAPES = choices("landscape")
CONVEX = [name for name in LANDSCAPES if name != "copy"]


def landscape_of(name: str, seed: int = 0):
    return call(resolved(composed(f"landscape={name}", config="toy")), "landscape", seed=seed)


def tiny_toy(*overrides: str) -> list[str]:
    """Overrides that make a run take a second."""
    small = ["landscape.n_batches=10", "trainer.max_epochs=2", "runtime.quiet=true", "runtime.n_threads=1"]
    return [*small, "runtime.fast_malloc=false", *overrides]


def descend(landscape, optimizer, n: int, threshold: float | None = None, seed: int = 0) -> list[float]:
    """The training loss before each of `n` steps."""
    clip = NormClipping(threshold=threshold, p=2) if threshold else lambda parameters: None
    losses = []
    for t in range(n):
        optimizer.zero_grad()
        loss = landscape.loss(*landscape.draw(generator_of(seed, 1, t)))
        loss.backward()
        clip(landscape.parameters())
        optimizer.step()
        losses.append(loss.item())
    return losses


def gap_of(landscape, seed: int = 0) -> float:
    with torch.no_grad():
        found = [landscape.scores(*landscape.draw(generator_of(seed, 2, i))) for i in range(landscape.n_scored)]
    return sum(s["gap"].item() for s in found) / len(found)


def sgd(landscape, lr: float, momentum: float = 0.0) -> torch.optim.Optimizer:
    return torch.optim.SGD(landscape.parameters(), lr=lr, momentum=momentum, nesterov=momentum > 0)


def subgradient(landscape, rule: str, lr: float) -> torch.optim.Optimizer:
    return Subgradient(
        landscape.parameters(), lr=lr, rule=rule, best_loss=0.0, weight_decay=0.0, average="none", eta=0.0
    )


# All of them


@pytest.mark.parametrize("name", LANDSCAPES)
class TestEvery:
    def test_seed_decides(self, name):
        one, same, other = landscape_of(name, 1), landscape_of(name, 1), landscape_of(name, 2)
        tensors = [list(x.parameters()) + list(x.buffers()) for x in (one, same, other)]
        assert all(torch.equal(a, b) for a, b in zip(tensors[0], tensors[1], strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(tensors[0], tensors[2], strict=True))
        assert set(one.scores(*one.draw(generator_of(0)))) == set(one.score_names) >= {"loss", "gap"}

    def test_scores_and_what_is_trained_on_agree(self, name):
        landscape = landscape_of(name)
        torch.manual_seed(0)
        with torch.no_grad():
            for p in landscape.parameters():
                p.add_(0.1 * torch.randn_like(p))
        drawn = landscape.draw(generator_of(3))
        if name == "heavy_tailed":  # the noise adds what has no mean
            drawn = tuple(torch.zeros_like(x) for x in drawn)
        assert landscape.loss(*drawn).item() == pytest.approx(landscape.scores(*drawn)["loss"].item(), rel=1e-4)


@pytest.mark.parametrize("name", CONVEX)
def test_gap_is_one_at_the_start_and_nothing_at_the_optimum(name):
    landscape = landscape_of(name, 4)
    assert gap_of(landscape) == pytest.approx(1, rel=1e-5)
    with torch.no_grad():
        landscape.w.copy_(landscape.optimum)
    assert gap_of(landscape) == 0


@pytest.mark.parametrize("name", CONVEX)
def test_nothing_is_below_the_optimum(name):
    landscape = landscape_of(name, 5)

    @settings(max_examples=30, deadline=None)
    @given(size=st.floats(1e-6, 1e6), direction=st.integers(0, 10_000))
    def hold(size, direction):
        with torch.no_grad():
            step = torch.randn(len(landscape.w), generator=generator_of(direction))
            landscape.w.copy_(landscape.optimum + size * step)
        assert gap_of(landscape) > 0

    hold()


# Each by itself


@pytest.mark.parametrize("rotated", [True, False])
@pytest.mark.parametrize("lr", [0.5, 1.9])
def test_gradient_descent_on_the_quadratic_is_known_step_by_step(rotated, lr):
    landscape = IllConditioned(seed=1, dim=12, condition=50, rotated=rotated, n_batches=1)
    losses = descend(landscape, sgd(landscape, lr), 40)
    values = np.logspace(-math.log10(50), 0, 12)
    expected = [((1 - lr * values) ** (2 * t)).mean() for t in range(40)]
    assert losses == pytest.approx(expected, rel=1e-3)


def test_the_quadratic_is_as_ill_conditioned_as_asked():
    landscape = IllConditioned(seed=1, dim=9, condition=300, rotated=True, n_batches=1)
    found = torch.linalg.eigvalsh(landscape.root.T @ landscape.root)
    assert found[[0, -1]].tolist() == pytest.approx([1 / 300, 1], rel=1e-3)
    assert (landscape.root.T @ landscape.root).fill_diagonal_(0).abs().max() > 0.01


@pytest.mark.parametrize(("lr", "converges"), [(1.9, True), (2.1, False)])
def test_two_over_the_largest_eigenvalue_is_the_limit(lr, converges):
    landscape = IllConditioned(seed=2, dim=5, condition=10, rotated=True, n_batches=1)
    descend(landscape, sgd(landscape, lr), 200)
    assert (gap_of(landscape) < 1e-8) if converges else (gap_of(landscape) > 1e6)


def test_the_noise_has_the_characteristic_function_of_its_tail_index():
    """E cos(t x) = exp(-|t|^alpha); each mean is within 5 of its standard deviations."""
    n = 40_000
    for alpha in (1.2, 1.5, 2.0):
        x = symmetric_stable(alpha, n, generator_of(7)).double()
        for t in (0.3, 1.0, 2.5):
            assert (t * x).cos().mean().item() == pytest.approx(math.exp(-(t**alpha)), abs=5 / math.sqrt(n))
            assert abs((t * x).sin().mean().item()) < 5 / math.sqrt(n)
    tails = [(symmetric_stable(a, n, generator_of(8)).abs() > 10).double().mean().item() for a in (1.2, 1.5, 2.0)]
    assert tails[0] > tails[1] > tails[2] == 0


def test_clipping_makes_heavy_tailed_noise_harmless():
    """Over 15 seeds the median gap at the end is over 3 times smaller, and the worst over 50 times."""

    def gaps(threshold):
        found = []
        for seed in range(15):
            landscape = HeavyTailed(seed, dim=10, tail_index=1.2, noise=0.1, n_batches=1)
            descend(landscape, sgd(landscape, 0.1), 150, threshold, seed)
            found.append(gap_of(landscape))
        return found

    free, clipped = gaps(None), gaps(1.0)
    assert median(free) > 3 * median(clipped)
    assert max(free) > 50 * max(clipped)
    assert max(clipped) < 0.1


def l1(seed: int = 0, outliers: float = 0.2) -> L1Regression:
    return L1Regression(seed, dim=8, n_examples=80, outliers=outliers, n_batches=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_linear_program_finds_the_planted_answer(seed):
    from scipy.optimize import linprog

    landscape = l1(seed)
    x, y = landscape.x.double().numpy(), landscape.y.double().numpy()
    n, d = x.shape
    eye = np.eye(n)  # min sum t, -t <= Xw - y <= t
    found = linprog(
        np.r_[np.zeros(d), np.ones(n)],
        A_ub=np.block([[x, -eye], [-x, -eye]]),
        b_ub=np.r_[y, -y],
        bounds=[(None, None)] * d + [(0, None)] * n,
    )
    assert found.x[:d] == pytest.approx(landscape.optimum.double().numpy(), abs=1e-4)
    squares = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.abs(squares - landscape.optimum.numpy()).max() > 0.05  # outliers do mislead least squares


def test_a_constant_rate_circles_at_a_distance_proportional_to_it():
    def floor(lr):
        landscape = l1()
        return np.mean(descend(landscape, sgd(landscape, lr), 600)[300:])

    floors = [floor(lr) for lr in (0.1, 0.05, 0.025)]
    assert all(1.5 < a / b < 2.7 for a, b in itertools.pairwise(floors)), floors


def test_steps_that_diminish_and_those_of_polyak_arrive():
    by = {}
    for rule, lr in (("constant", 0.1), ("diminishing", 0.1)):
        landscape = l1()
        descend(landscape, subgradient(landscape, rule, lr), 800)
        by[rule] = gap_of(landscape)
    landscape = l1()
    optimizer = subgradient(landscape, "polyak", 1.0)

    def closure():
        optimizer.zero_grad()
        loss = landscape.loss()
        loss.backward()
        return loss

    for _ in range(100):
        optimizer.step(closure)
    assert by["diminishing"] < by["constant"] / 10
    assert gap_of(landscape) < 1e-5


def test_the_mean_of_circling_iterates_is_nearer_than_they_are():
    landscape, total = l1(), torch.zeros(8)
    optimizer = sgd(landscape, 0.1)
    losses = descend(landscape, optimizer, 200)
    for _ in range(400):
        losses += descend(landscape, optimizer, 1)
        total += landscape.w.detach()
    with torch.no_grad():
        landscape.w.copy_(total / 400)
    assert gap_of(landscape) < np.mean(losses[200:]) / 2


def copy_task(**changes) -> CopyTask:
    sizes = {"n_symbols": 4, "n_recalled": 2, "delay": 10, "d_hidden": 64, "batch_size": 32}
    values = {"seed": 0, **sizes, "spectral_radius": 1.5, "n_batches": 1, "n_scored": 5, **changes}
    return CopyTask(**values)


def test_who_does_not_remember_has_a_gap_of_one():
    task = copy_task(n_symbols=5)
    with torch.no_grad():
        task.output.weight.zero_()
    assert gap_of(task) == pytest.approx(1, rel=1e-6)
    symbols = task.draw(generator_of(1))[0]
    assert task.scores(symbols)["error"].item() == pytest.approx((symbols != 0).double().mean().item())


def test_only_what_was_read_can_be_recalled():
    """The answer depends on the symbols, at every place; nothing of them is shown again."""
    task = copy_task(delay=0, spectral_radius=0.9)
    a, b = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[0, 1], [2, 1]])
    with torch.no_grad():
        first, second = task(a), task(b)
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])


@pytest.mark.parametrize(("radius", "grows"), [(1.5, True), (0.5, False)])
def test_gradients_through_time_go_with_the_spectral_radius(radius, grows):
    """By radius^10 where nothing saturates: small inputs hold every unit near 0."""

    def norm(delay):
        task = copy_task(delay=delay, spectral_radius=radius)
        with torch.no_grad():
            task.rnn.weight_ih_l0.mul_(1e-6)
            task.rnn.weight_ih_l0[:, -2:] = 0  # blanks and the sign say nothing: all comes from the symbols
        task.loss(*task.draw(generator_of(1))).backward()
        return task.rnn.weight_ih_l0.grad[:, :-2].norm().item()

    assert norm(20) / norm(10) == pytest.approx(radius**10, rel=0.05)
    assert (norm(20) > norm(10)) == grows


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_clipping_lets_an_exploding_network_learn(seed):
    """SGD with momentum: with clipping nothing is forgotten, without it guessing is all there is."""
    gaps = []
    for threshold in (None, 1.0):
        task = copy_task(seed=seed)
        descend(task, sgd(task, 0.1, momentum=0.9), 300, threshold, seed)
        gaps.append(gap_of(task))
    assert gaps[0] > 0.7
    assert gaps[1] < 0.01


# Runs


def scored(run: Run) -> list[float]:
    return [row["val/gap"] for row in read_jsonl(run.metrics_file) if "val/gap" in row]


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory) -> Run:
    """A finished one; tests only read it."""
    run = make_run(tmp_path_factory.mktemp("toy") / "run", tiny_toy("landscape=copy", "clipping=norm"), config="toy")
    train(run)
    return run


def test_result_says_what_came_out(toy_run):
    result = toy_run.result()
    assert (result["status"], result["score"], result["steps"]) == ("done", "gap", 20)
    assert result["factors"]["landscape"] == "copy"
    assert result["batches_per_second"] > 0
    for split in ("val", "test"):
        found = {k: result["metrics"][f"{split}/{k}"] for k in ("loss", "gap", "error")}
        assert found["gap"] == pytest.approx(found["loss"] / math.log(4), rel=1e-5)
        assert 0 <= found["error"] <= 1
    assert result["metrics"]["val/gap"] != result["metrics"]["test/gap"]  # other sequences


def test_the_last_weights_are_scored_not_the_luckiest(tmp_path):
    """An optimizer that starts at the optimum's side and is then carried away by a rate that is too high."""
    rising = ["landscape=ill_conditioned", "landscape.dim=4", "optimizer.lr=2.2", "optimizer.momentum=0"]
    run = make_run(tmp_path / "run", tiny_toy(*rising, "optimizer.nesterov=false"), config="toy")
    result = train(run)
    gaps = scored(run)
    assert gaps[0] < gaps[-1]
    assert result["metrics"]["test/gap"] == pytest.approx(gaps[-1], rel=1e-6)
    assert result["best"]["step"] == 20


def test_same_seed_same_numbers(toy_run, tmp_path):
    overrides = tiny_toy("landscape=copy", "clipping=norm")
    again = make_run(tmp_path / "again", overrides, config="toy")
    other = make_run(tmp_path / "other", [*overrides, "seed=2"], config="toy")
    assert again.fingerprint == toy_run.fingerprint != other.fingerprint
    assert train(again)["metrics"] == toy_run.result()["metrics"] != train(other)["metrics"]


@pytest.mark.slow
def test_resumed_within_an_epoch_equals_uninterrupted(tmp_path):
    overrides = tiny_toy("landscape=heavy_tailed", "clipping=zclip", "clipping.warmup=3")
    whole = make_run(tmp_path / "whole", overrides, config="toy")
    result = train(whole)
    make_run(tmp_path / "cut", [*overrides, "runtime.checkpoint_minutes=0.00001"], config="toy")
    assert interrupted_at(tmp_path / "cut", step=13) == 143
    cut = Run.open(tmp_path / "cut")
    again = train(cut)
    assert again["resumed_at_step"] == 14  # it finishes the step at hand
    assert again["metrics"] == result["metrics"]
    assert scored(cut) == scored(whole)


def test_processes_draw_their_own_batches_and_score_the_same():
    data = build_toy(resolved(composed(*tiny_toy("landscape=heavy_tailed"), config="toy"))).data

    def drawn(split, rank, epoch=0):
        loader = data.loader(split, rank, 2)
        loader.sampler.set_epoch(epoch)
        return torch.stack([batch.drawn[0] for batch in loader])

    assert torch.equal(drawn("train", 0), drawn("train", 0))
    assert not torch.equal(drawn("train", 0), drawn("train", 1))
    assert not torch.equal(drawn("train", 0), drawn("train", 0, epoch=1))
    assert len(drawn("train", 0).unique(dim=0)) == 10
    assert torch.equal(drawn("val", 0), drawn("val", 1, epoch=1))


def test_who_is_carried_away_has_exploded(tmp_path):
    away = ["landscape=ill_conditioned", "landscape.dim=4", "optimizer.lr=1000", "optimizer.momentum=0"]
    run = make_run(tmp_path / "run", tiny_toy(*away, "optimizer.nesterov=false"), config="toy")
    with pytest.raises(ExplodedError, match=r"val/gap .* at step 10; lower optimizer.lr"):
        train(run)
    assert run.result()["status"] == "exploded"


@pytest.mark.parametrize(
    ("landscape", "value", "says"),
    [
        ("ill_conditioned", "condition=0.5", "landscape.condition must be at least 1, 0.5 came"),
        ("ill_conditioned", "dim=0", "landscape.dim must be at least 1"),
        ("ill_conditioned", "condition=nan", "landscape.condition must be at least 1, nan came"),
        ("heavy_tailed", "tail_index=1.0", "landscape.tail_index is above 1"),
        ("heavy_tailed", "tail_index=2.5", "at most 2; 2.5 came"),
        ("heavy_tailed", "noise=-1", "landscape.noise must be at least 0"),
        ("l1_regression", "outliers=0.5", "below 0.5; 0.5 came"),
        ("l1_regression", "n_examples=5", "landscape.n_examples must be at least 40, 5 came"),
        ("copy", "spectral_radius=0", "landscape.spectral_radius must be positive, 0 came"),
        ("copy", "n_symbols=1", "landscape.n_symbols must be at least 2"),
        ("copy", "delay=-1", "landscape.delay must be at least 0"),
        ("copy", "n_batches=0", "landscape.n_batches must be at least 1"),
        ("copy", "delay=long", "wants delay as int"),
    ],
)
def test_wrong_values_are_one_line(landscape, value, says):
    config = resolved(composed(*tiny_toy(f"landscape={landscape}", f"landscape.{value}"), config="toy"))
    with pytest.raises(ConfigError, match=f"conf/landscape: .*{says}"):
        build_toy(config)


@pytest.mark.slow
def test_from_the_command_line_to_the_report(asr_lab, tmp_path):
    small = [*tiny_toy(), "optimizer.nesterov=false", "optimizer.momentum=0"]
    flags = ["-m", "--config-name", "toy", "hydra/launcher=basic", *small, "experiment=toys"]
    grid = ["landscape=heavy_tailed,ill_conditioned", "clipping=none,norm"]
    done = asr_lab("train", *flags, *grid, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    away = [o for o in flags if o != "-m"]
    done = asr_lab("train", *away, "landscape=ill_conditioned", "clipping=none", "optimizer.lr=1000", cwd=tmp_path)
    assert "conf/" not in only_line(done) and "lower optimizer.lr" in only_line(done)

    folder = tmp_path / "outputs" / "toys"
    plan = json.loads((folder / "sweep.json").read_text())
    exploded = next(p for p in folder.glob("*/result.json") if json.loads(p.read_text())["status"] == "exploded")
    result = json.loads(exploded.read_text())
    plan["cells"].append(
        {"name": exploded.parent.name, "fingerprint": result["fingerprint"], "factors": result["factors"]}
    )
    (folder / "sweep.json").write_text(json.dumps(plan))
    done = asr_lab("report", "toys", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ill_conditioned: the lowest gap is 0." in done.stdout
    assert "diverged" in done.stdout
    page = (folder / "report.md").read_text()
    order = [line.split("|")[1].strip().replace("\\", "") for line in page.splitlines() if line.startswith("| ")][1:]
    assert order == ["heavy_tailed"] * 2 + ["ill_conditioned"] * 3  # one of them with another lr: it exploded
    assert "0/1" in page
    assert page.index("- **heavy\\_tailed" if "heavy\\_" in page else "- **heavy_tailed") < page.index("## Test gap")
    assert "val/gap 1" in page  # the reason of the failure
    assert (folder / "results.csv").read_text().count("heavy_tailed") >= 2
    done = asr_lab("clip-advice", "toys", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    name = next(folder.glob("*heavy*")).name
    assert asr_lab("clip-advice", str(folder / name), cwd=tmp_path).returncode == 0


def test_speech_commands_do_not_take_a_landscape(asr_lab, toy_run, tmp_path):
    line = only_line(asr_lab("evaluate", str(toy_run.folder), cwd=tmp_path))
    assert "a toy landscape's run; a speech recogniser's is wanted here" in line


def test_the_line_of_a_cell_shows_the_gap(toy_run):
    from asr_lab.sweep.pool import line

    assert f"test/gap {toy_run.result()['metrics']['test/gap']:.3g}  " in line(toy_run)
