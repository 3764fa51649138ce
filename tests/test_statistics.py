"""Batch norm's running statistics in steps that are left out."""

import pytest
import torch
from torch import nn

from asr_lab.optim.statistics import RunningStatistics

from .test_clipping_training import Line, batches, fit


def test_taken_back_only_where_the_step_is_gone():
    norm = nn.BatchNorm1d(3)
    statistics = RunningStatistics(nn.Sequential(nn.Linear(3, 3), norm))
    for gone in (False, True):
        before = norm.running_mean.clone(), norm.running_var.clone()
        statistics.keep()
        norm(torch.randn(8, 3) * 3 + 2)
        statistics.take_back(torch.tensor(gone))
        same = [torch.equal(a, b) for a, b in zip(before, (norm.running_mean, norm.running_var), strict=True)]
        assert same == [gone, gone]


def test_of_several_passes_the_first_counts():
    norm = nn.BatchNorm1d(3)
    statistics, before = RunningStatistics(norm), norm.running_mean.clone()
    for batch in (torch.full((4, 3), torch.nan), torch.randn(4, 3)):
        statistics.keep()
        norm(batch)
    statistics.take_back(torch.tensor(True))
    assert torch.equal(norm.running_mean, before)


class Normed(Line):
    def __init__(self, *args):
        super().__init__(*args)
        self.net.insert(1, nn.BatchNorm1d(6))


@pytest.mark.parametrize("accumulated", [1, 2])
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_a_batch_that_is_not_finite_leaves_no_trace(optimizer, accumulated):
    """The second of the batches that make a step spoils the first one's statistics as well."""
    good = batches(6)
    bad = [b.clone() for b in good[:accumulated]]
    bad[-1][0, 0] = torch.nan
    tasks = [
        fit(Normed("norm", optimizer), items, accumulate_grad_batches=accumulated)
        for items in ([*good[:4], *good[4:]], [*good[:4], *bad, *good[4:]])
    ]
    whole, spoilt = (dict(task.net.named_parameters()) | dict(task.net.named_buffers()) for task in tasks)
    assert tasks[1].counts["nonfinite"] == 1
    for name, value in whole.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, spoilt[name]), name
