"""Every clipping choice: what it reports, invariants, and agreement with torch where torch has it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.build import make
from asr_lab.clipping.none import NoClipping
from asr_lab.clipping.norm import NormClipping
from asr_lab.clipping.value import ValueClipping
from asr_lab.errors import ConfigError
from asr_lab.sweep.cell import resolved

from .conftest import choices, composed, tiny

ALL = choices("clipping")
FINITE = st.floats(-1e3, 1e3, width=32)


def parameters(*grads) -> list[torch.Tensor]:
    params = []
    for grad in grads:
        p = torch.nn.Parameter(torch.zeros(() if grad is None else torch.as_tensor(grad).shape))
        p.grad = None if grad is None else torch.as_tensor(grad, dtype=torch.float32).clone()
        params.append(p)
    return params


def total_norm(params) -> float:
    grads = [p.grad.flatten() for p in params if p.grad is not None]
    return torch.cat(grads).norm().item() if grads else 0.0


@pytest.mark.parametrize("name", ALL)
class TestEveryChoice:
    @pytest.fixture
    def clipper(self, name, tones):
        return make(resolved(composed(*tiny(tones, f"clipping={name}"))), "clipping")

    def test_reports_the_norms_it_found_and_left(self, name, clipper):
        params = parameters([3.0, -4.0], [[12.0]], None)
        report = clipper(params)
        assert report.norm_before.item() == pytest.approx(13.0)
        assert report.norm_after.item() == pytest.approx(total_norm(params), rel=1e-5)
        assert bool(report.clipped) == (report.norm_after.item() < 13.0 - 1e-4)

    def test_small_gradients_pass_unchanged(self, name, clipper):
        params = parameters([1e-4, -2e-4], [1e-4])
        before = [p.grad.clone() for p in params]
        assert not clipper(params).clipped
        assert all(torch.equal(p.grad, b) for p, b in zip(params, before, strict=True))

    def test_all_parameter_groups_count(self, name, clipper):
        """Trap: clipping the first group only."""
        params = parameters([1e-6], [1e3])
        report = clipper(iter(params))  # an iterator is enough
        assert report.norm_before.item() == pytest.approx(1e3)
        assert name == "none" or params[1].grad.item() < 1e3

    def test_no_gradients_at_all(self, name, clipper):
        report = clipper(parameters(None, None))
        assert report.norm_before.item() == report.norm_after.item() == 0
        assert not report.clipped

    def test_twice_is_once(self, name, clipper):
        params = parameters([30.0, -40.0], [5.0])
        clipper(params)
        once = [p.grad.clone() for p in params]
        clipper(params)
        for p, grad in zip(params, once, strict=True):
            torch.testing.assert_close(p.grad, grad, rtol=1e-5, atol=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(FINITE, min_size=1, max_size=5), min_size=1, max_size=4), st.floats(0.01, 100))
def test_norm_agrees_with_torch(grads, threshold):
    ours, theirs = parameters(*grads), parameters(*grads)
    report = NormClipping(threshold)(ours)
    norm = torch.nn.utils.clip_grad_norm_(theirs, threshold)
    torch.testing.assert_close(report.norm_before, norm, rtol=1e-6, atol=0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-8)
    assert total_norm(ours) <= threshold * (1 + 1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(FINITE, min_size=1, max_size=5), min_size=1, max_size=4), st.floats(0.01, 100))
def test_value_agrees_with_torch(grads, threshold):
    ours, theirs = parameters(*grads), parameters(*grads)
    report = ValueClipping(threshold)(ours)
    torch.nn.utils.clip_grad_value_(theirs, threshold)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.grad, b.grad)
    largest = max(abs(torch.tensor(g)).max().item() for g in grads)
    assert bool(report.clipped) == (largest > torch.tensor(threshold, dtype=torch.float32).item())


def test_norm_keeps_the_direction():
    params = parameters([3.0, 4.0])
    NormClipping(1.0)(params)
    torch.testing.assert_close(params[0].grad, torch.tensor([0.6, 0.8]))


def test_none_touches_nothing():
    params = parameters([float("1e9")])
    NoClipping()(params)
    assert params[0].grad.item() == 1e9


@pytest.mark.parametrize("name", ["norm", "value"])
@pytest.mark.parametrize("threshold", [0, -1.0])
def test_thresholds_that_cannot_be(name, threshold, tones):
    config = resolved(composed(*tiny(tones, f"clipping={name}", f"clipping.threshold={threshold}")))
    with pytest.raises(ConfigError, match=r"conf/clipping: clipping.threshold must be positive.*clipping=none"):
        make(config, "clipping")
