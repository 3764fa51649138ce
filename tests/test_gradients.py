"""The record of gradients, and what is read from it."""

import numpy as np
import pytest
import torch

from asr_lab.clipping.history import MedianClipping
from asr_lab.clipping.norm import NormClipping
from asr_lab.errors import DataError
from asr_lab.gradients.advice import replay, role, suggested, thresholds
from asr_lab.gradients.record import STEP_COLUMNS, Record, read_record

N = len(STEP_COLUMNS)


def record(n: int, max_rows: int = 1000) -> Record:
    made = Record(["a", "b.0"], max_rows)
    for step in range(n):
        made.add(step, np.full(N, step))
        if step % 10 == 0:
            made.look(step, np.array([step, 1.0]), np.array([0.1, 0.2]))
    return made


class TestRecord:
    def test_what_is_written_is_read(self, tmp_path):
        record(35).write(tmp_path / "gradients.npz")
        again = read_record(tmp_path / "gradients.npz")
        assert again.layers == ["a", "b.0"] and again.steps.tolist() == list(range(35))
        assert again.column("norm_before").tolist() == list(range(35)) and again.looked.tolist() == [0, 10, 20, 30]
        assert again.norms.shape == again.updates.shape == (4, 2)

    def test_a_resumed_training_takes_its_steps_again(self):
        made = record(35)
        made.cut(21)
        assert made.steps.tolist() == list(range(21)) and made.looked.tolist() == [0, 10, 20]
        assert len(made.values) == 21 and len(made.norms) == 3

    def test_its_size_is_bounded_and_the_end_is_whole(self):
        made = record(5000, max_rows=200)
        assert len(made.steps) <= 200 and (np.diff(made.steps) > 0).all()
        assert made.steps[-80:].tolist() == list(range(4920, 5000)) and made.steps[0] == 0
        assert (made.column("loss") == made.steps).all()

    def test_nothing_recorded_is_a_file_too(self, tmp_path):
        record(0).write(tmp_path / "gradients.npz")
        assert read_record(tmp_path / "gradients.npz").values.shape == (0, N)

    @pytest.mark.parametrize("content", [b"", b"text", None])
    def test_what_is_no_record_is_one_line(self, tmp_path, content):
        file = tmp_path / "gradients.npz"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(DataError, match="gradients.npz: no") as error:
            read_record(file)
        assert "\n" not in str(error.value)


class TestAdvice:
    norms = np.array([1.0, 2.0, 3.0, 4.0, 50.0])

    def test_roles(self):
        assert [role(x) for x in (0.0, 0.001, 0.05, 0.3, 0.5, 0.51, 1.0)] == [
            "inert", "safety net", "in between", "in between", "in between", "limiter", "limiter",
        ]  # fmt: skip

    def test_thresholds_by_hand(self):
        low, high = thresholds(self.norms, [2.0, 60.0])
        assert (low.clipped, low.role) == (0.6, "limiter")
        assert low.kept == pytest.approx((1 + 1 + 2 / 3 + 0.5 + 0.04) / 5)
        assert (high.clipped, high.kept, high.role) == (0.0, 1.0, "inert")

    def test_a_grid_at_percentiles(self):
        norms = np.exp(np.random.default_rng(0).normal(size=10_000))
        grid = suggested(norms, [50, 90, 99])
        shares = [t.clipped for t in thresholds(norms, grid)]
        assert grid == sorted(grid) and shares == pytest.approx([0.5, 0.1, 0.01], abs=0.03)
        assert suggested(np.ones(10), [10, 50, 90]) == [1.0]

    def test_replay_is_the_choice_itself(self):
        found = replay("norm", NormClipping(2.5, 2), self.norms)
        [known] = thresholds(self.norms, [2.5])
        assert (found.clipped, found.role) == (known.clipped, known.role)
        assert found.kept == pytest.approx(known.kept, rel=1e-5) and found.longest == pytest.approx(2.5, rel=1e-5)
        median = replay("median", MedianClipping(2.1, 10, 2), self.norms)
        assert median.clipped == pytest.approx(0.2) and median.longest == pytest.approx(5.25, rel=1e-5)
        assert torch.is_grad_enabled()
