"""The learning-rate range test: losses whose answer is known, and the command."""

import json
import math

import numpy as np
import pytest

from asr_lab.errors import ConfigError, DataError
from asr_lab.gradients.range_test import DIVERGED, RangeTest, advise, ramp

from .conftest import only_line, tiny, tiny_lm


def test_ramp():
    assert ramp(1e-4, 1.0, 5).tolist() == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])


class TestAdvice:
    def test_gradient_descent_on_a_quadratic(self):
        """Along curvature h a step multiplies the weight by 1 - lr h: the loss falls until lr = 2 / h."""
        h, w, losses = 50.0, 1.0, []
        lrs = ramp(1e-3, 1.0, 400)
        for lr in lrs:
            losses.append(0.5 * h * w * w)
            w -= lr * h * w
        n = next(i for i, x in enumerate(losses) if x > DIVERGED * min(losses[: i + 1]))
        advice = advise(RangeTest(lrs[:n], np.array(losses[:n]), True))
        assert advice.lowest == pytest.approx(2 / h, rel=0.15) and advice.tenth == advice.lowest / 10
        assert advice.steepest < advice.lowest and not advice.note

    @pytest.mark.parametrize("noise", [0.0, 0.01])
    def test_the_steepest_place_of_a_sigmoid(self, noise):
        lrs = ramp(1e-6, 1.0, 200)
        losses = 3 - 2 / (1 + np.exp(-3 * np.log10(lrs / 1e-3)))
        losses += noise * np.random.default_rng(0).normal(size=200)
        advice = advise(RangeTest(lrs, losses, False))
        assert advice.steepest == pytest.approx(1e-3, rel=0.6 if noise else 0.05)

    def test_a_parabola_is_lowest_where_it_is(self):
        lrs = ramp(1e-4, 1.0, 101)
        advice = advise(RangeTest(lrs, (np.log10(lrs) + 1) ** 2, True))
        assert advice.lowest == pytest.approx(0.1) and advice.tenth == pytest.approx(0.01)

    def test_what_goes_wrong_is_said(self):
        lrs = ramp(1e-4, 1.0, 50)
        falling = advise(RangeTest(lrs, np.linspace(3, 1, 50), False))
        assert "larger --max-lr" in falling.note and falling.steepest is not None
        rising = advise(RangeTest(lrs, np.linspace(1, 3, 50), True))
        assert "smaller --min-lr" in rising.note and rising.lowest is None
        with pytest.raises(DataError, match="exploded after 3 steps"):
            advise(RangeTest(lrs[:3], np.ones(3), True))


class TestCommand:
    def test_it_finds_and_leaves_nothing(self, tmp_path, tones, asr_lab):
        args = [*tiny(tones, "encoder=gru", "optimizer=sgd"), "--steps", "30", "--max-lr", "1000", "--plot", "lr.png"]
        done = asr_lab("lr-find", *args, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert [p.name for p in tmp_path.iterdir()] == ["lr.png"]
        assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
        n = len(found["loss"])
        assert len(found["lr"]) == len(found["smoothed"]) == n <= 30 and found["diverged"]
        assert found["lr"] == pytest.approx(ramp(1e-6, 1000, 30)[:n].tolist())
        assert all(math.isfinite(x) for x in found["loss"]) and found["loss"][0] > 1
        assert 1e-5 < found["steepest"] < found["lowest"] < 100

    def test_a_language_model(self, tmp_path, tones, asr_lab):
        args = [*tiny_lm(tones), "--config-name", "lm", "--steps", "40", "--min-lr", "1e-4", "--max-lr", "30"]
        done = asr_lab("lr-find", *args, cwd=tmp_path)
        assert done.returncode == 0 and "where the loss falls fastest" in done.stdout, done.stderr
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            (["--min-lr", "0"], "--min-lr 0 --max-lr 10: wanted are positive numbers"),
            (["--min-lr", "1", "--max-lr", "0.1"], "the first one smaller"),
            (["--max-lr", "inf"], "wanted are positive numbers"),
            (["--steps", "5"], "--steps 5: at least 20"),
            (["--plot", "lr.txt"], "ending in .png"),
            (["--config-name", "lmm"], "did you mean 'lm'"),
            (["encoder=grux"], "did you mean 'gru'"),
            (["trainer=ddp", "trainer.devices=2"], "lr-find takes one device"),
        ],
    )
    @pytest.mark.quick(3)
    def test_mistakes(self, args, says, tmp_path, asr_lab):
        assert says in only_line(asr_lab("lr-find", *args, cwd=tmp_path))


def test_every_group_grows_alike_and_accumulated_batches_are_one_step(tones, monkeypatch):
    from asr_lab.lr_find import range_test
    from asr_lab.sweep.cell import resolved
    from asr_lab.task import SpeechTask

    from .conftest import composed

    seen = []
    monkeypatch.setattr(
        SpeechTask, "on_before_optimizer_step", lambda task, o: seen.append([g["lr"] for g in o.param_groups])
    )
    config = resolved(composed(*tiny(tones, "encoder=gru", "schedule=noam", "trainer.accumulate_grad_batches=2")))
    test = range_test(config, 1e-4, 1e-3, 4)
    assert len(test.losses) == 4 and not test.diverged
    assert [first for first, _ in seen] == pytest.approx(test.lrs.tolist())
    assert all(first == second for first, second in seen)


def test_a_learning_rate_of_zero_is_said(tones):
    from asr_lab.lr_find import range_test
    from asr_lab.sweep.cell import resolved

    from .conftest import composed

    with pytest.raises(ConfigError, match="conf/optimizer: its lr is 0"):
        range_test(resolved(composed(*tiny(tones, "encoder=gru", "optimizer.lr=0.0"))), 1e-4, 1e-3, 20)
