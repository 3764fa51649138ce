"""Every clipping choice: what it reports, invariants, agreement with torch where torch has it, formulas by hand."""

import copy
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asr_lab.build import make
from asr_lab.clipping.agc import AdaptiveClipping
from asr_lab.clipping.history import AutoClipping, MedianClipping, ZClipping
from asr_lab.clipping.norm import NormClipping
from asr_lab.clipping.separate import PerLayerClipping, PerParameterClipping
from asr_lab.clipping.sequence import SequenceClipping
from asr_lab.clipping.shear import ShearClipping
from asr_lab.clipping.skip import SkipClipping
from asr_lab.clipping.soft import SoftClipping
from asr_lab.clipping.value import ValueClipping
from asr_lab.errors import ConfigError
from asr_lab.sweep.cell import resolved

from .conftest import choices, composed, tiny

ALL = choices("clipping")
# Keeps the direction of the whole gradient.
DIRECTION = ("none", "norm", "autoclip", "median", "zclip", "soft", "skip")
# The threshold follows what came before.
HISTORY = ("autoclip", "median", "zclip")
REMEMBERS = (*HISTORY, "shear")
# A second call with the same gradients changes them again, by design.
NOT_IDEMPOTENT = ("soft", "shear", *HISTORY)
ODD = st.sampled_from([math.nan, math.inf, -math.inf])
FINITE = st.floats(-1e3, 1e3, width=32)
GRADS = st.lists(st.lists(FINITE, min_size=1, max_size=5), min_size=1, max_size=4)


def parameters(*grads) -> list[torch.Tensor]:
    """Weights of one, with these gradients."""
    params = []
    for grad in grads:
        p = torch.nn.Parameter(torch.ones(() if grad is None else torch.as_tensor(grad).shape))
        p.grad = None if grad is None else torch.as_tensor(grad, dtype=torch.float32).clone()
        params.append(p)
    return params


def set_grad(p: torch.Tensor, grad: torch.Tensor | None) -> None:
    p.grad = grad


def total_norm(params, p=2) -> float:
    grads = [p.grad.to_dense().flatten() for p in params if p.grad is not None]
    return torch.cat(grads).norm(p=p).item() if grads else 0.0


def made(name: str, tones, *overrides: str):
    return make(resolved(composed(*tiny(tones, f"clipping={name}", *overrides))), "clipping")


@pytest.mark.parametrize("name", ALL)
class TestEveryChoice:
    @pytest.fixture
    def clipper(self, name, tones):
        return made(name, tones)

    def used(self, clipper, norm: float = 1.0, n: int = 30):
        """After steps with norms about `norm`, so that those with a memory have one."""
        g = torch.Generator().manual_seed(0)
        for _ in range(n):
            grad = torch.randn(4, generator=g)
            clipper(parameters((norm * grad / grad.norm() * (1 + 0.1 * torch.rand((), generator=g))).tolist()))
        return clipper

    def test_reports_the_norms_it_found_and_left(self, name, clipper):
        params = parameters([3.0, -4.0], [[12.0, 0.0]], None)
        report = clipper(params)
        assert report.norm_before.item() == pytest.approx(13.0)
        if report.skip is not None and report.skip:
            assert report.norm_after.item() == 0
        else:
            assert report.norm_after.item() == pytest.approx(total_norm(params), rel=1e-5)
        changed = any(
            p.grad is not None and not torch.equal(p.grad, torch.as_tensor(g))
            for p, g in zip(params, ([3.0, -4.0], [[12.0, 0.0]], None), strict=True)
        )
        assert bool(report.clipped) == changed
        assert all(x.ndim == 0 for x in report if x is not None)

    def test_small_gradients_pass(self, name, clipper):
        params = parameters([1e-4, -2e-4], [1e-4])
        before = [p.grad.clone() for p in params]
        report = clipper(params)
        if name == "shear":  # the smallest of all are its business
            return
        assert not report.clipped
        for p, b in zip(params, before, strict=True):
            torch.testing.assert_close(p.grad, b, rtol=1e-3, atol=0)
            assert name == "soft" or torch.equal(p.grad, b)

    def test_all_parameter_groups_count(self, name, clipper):
        """Trap: clipping the first group only."""
        params = parameters([1e-6], [1e3])
        if name in HISTORY:
            self.used(clipper)
        report = clipper(iter(params))  # an iterator is enough
        assert report.norm_before.item() == pytest.approx(1e3)
        if name not in ("none", "shear"):
            assert (report.skip is not None and report.skip) or params[1].grad.item() < 1e3

    def test_no_gradients_at_all(self, name, clipper):
        report = clipper(parameters(None, None))
        assert report.norm_before.item() == report.norm_after.item() == 0
        assert not report.clipped

    def test_an_empty_gradient_and_a_scalar(self, name, clipper):
        params = [nn.Parameter(torch.zeros(0)), nn.Parameter(torch.ones(()))]
        params[0].grad, params[1].grad = torch.zeros(0), torch.tensor(0.5)
        assert clipper(params).norm_before.item() == 0.5

    def test_sparse_gradients(self, name, clipper):
        """As the dense ones with the same elements, or one line that names a choice that can."""
        rows = nn.Embedding(5, 3, sparse=True)
        dense = nn.Parameter(rows.weight.detach().clone())
        loss = (rows(torch.tensor([1, 3, 1])) * 50).sum()
        loss.backward()
        dense.grad = rows.weight.grad.to_dense()
        if name == "shear":
            with pytest.raises(ValueError, match=r"sparse.*clipping=norm"):
                clipper([rows.weight])
            return
        report, other = clipper([rows.weight]), copy.deepcopy(clipper)([dense])
        torch.testing.assert_close(report.norm_before, other.norm_before)
        if name not in HISTORY:  # the copy has seen a step more
            torch.testing.assert_close(rows.weight.grad.to_dense(), dense.grad)

    def test_twice_is_once(self, name, clipper):
        if name in NOT_IDEMPOTENT:
            pytest.skip("changes gradients at each call by design")
        params = parameters([30.0, -40.0], [5.0])
        clipper(params)
        once = [p.grad.clone() for p in params]
        clipper(params)
        for p, grad in zip(params, once, strict=True):
            torch.testing.assert_close(p.grad, grad, rtol=1e-5, atol=0)

    @settings(max_examples=10, deadline=None)
    @given(grads=GRADS)
    @pytest.mark.quick(6)
    def test_never_longer_and_no_sign_turned(self, name, tones, grads):
        params = parameters(*grads)
        clipper = CLIPPERS.setdefault(name, made(name, tones))
        if name in REMEMBERS:
            clipper = copy.deepcopy(clipper)
        clipper(params)
        before = torch.cat([torch.tensor(g).flatten() for g in grads])
        after = torch.cat([p.grad.flatten() for p in params])
        assert (after.abs() <= before.abs() * (1 + 1e-5) + 1e-30).all()
        assert (after * before >= 0).all()
        if name in DIRECTION and after.norm() > 1e-6:
            assert torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=0) > 1 - 1e-5

    @settings(max_examples=10, deadline=None)
    @given(grads=st.lists(st.none() | st.lists(st.floats(-1e3, 1e3, width=32) | ODD, max_size=4), max_size=4))
    @pytest.mark.quick(6)
    def test_whatever_comes_is_reported_and_remembered_rightly(self, name, tones, grads):
        """None, empty, nan and inf: the norm before is finite exactly when all elements are; else nothing is learnt."""
        clipper = copy.deepcopy(CLIPPERS.setdefault(name, made(name, tones)))
        shapes = [(0 if g is None else len(g),) for g in grads]
        params = [nn.Parameter(torch.ones(shape)) for shape in shapes]
        clipper([p for p in params if set_grad(p, torch.ones_like(p)) is None])
        before = copy.deepcopy(getattr(clipper, "state_dict", dict)())
        for p, g in zip(params, grads, strict=True):
            set_grad(p, None if g is None else torch.tensor(g, dtype=torch.float32))
        report = clipper(params)
        finite = all(math.isfinite(x) for g in grads if g for x in g)
        assert report.norm_before.isfinite() == finite
        if not finite:
            torch.testing.assert_close(leaves(getattr(clipper, "state_dict", dict)()), leaves(before), equal_nan=True)
        for p, shape in zip(params, shapes, strict=True):
            assert torch.equal(p, torch.ones(shape)) and (p.grad is None or p.grad.shape == shape)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_norms_of_half_precision_are_whole(self, name, clipper, dtype):
        """Each element fits into float16, their norm does not."""
        params = [nn.Parameter(torch.ones(40, 25, dtype=dtype)), nn.Parameter(torch.ones(24, dtype=dtype))]
        for p in params:
            set_grad(p, torch.full_like(p, 1e4))
        report = clipper(params)
        assert report.norm_before.dtype == torch.float32
        assert report.norm_before.item() == pytest.approx(1e4 * 32, rel=1e-2)
        assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in params)

    def test_a_step_that_is_not_finite_leaves_no_trace(self, name, clipper):
        if not hasattr(clipper, "state_dict"):
            pytest.skip("remembers nothing")
        self.used(clipper)
        before = copy.deepcopy(clipper.state_dict())
        for bad in (math.nan, math.inf):
            clipper(parameters([1.0, bad, 2.0, 0.0]))
        after = clipper.state_dict()
        for a, b in zip(leaves(before), leaves(after), strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)

    def test_goes_on_where_it_stopped(self, name, clipper, tones):
        if not hasattr(clipper, "state_dict"):
            pytest.skip("remembers nothing")
        self.used(clipper)
        other = made(name, tones)
        other.load_state_dict(copy.deepcopy(clipper.state_dict()))
        for seed in range(5):
            grad = (3 * torch.randn(4, generator=torch.Generator().manual_seed(seed))).tolist()
            one, two = parameters(grad), parameters(grad)
            a, b = clipper(one), other(two)
            assert torch.equal(one[0].grad, two[0].grad) and torch.equal(a.norm_after, b.norm_after)

    def test_what_it_remembers_is_its_own(self, name, clipper):
        """A state that was taken does not change with the next step."""
        if not hasattr(clipper, "state_dict"):
            pytest.skip("remembers nothing")
        self.used(clipper)
        state = clipper.state_dict()
        kept = copy.deepcopy(state)
        self.used(clipper, n=3)
        for a, b in zip(leaves(state), leaves(kept), strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)


CLIPPERS: dict = {}


def leaves(state) -> list:
    if isinstance(state, dict):
        return [x for value in state.values() for x in leaves(value)]
    return [x for value in state for x in leaves(value)] if isinstance(state, list) else [state]


class TestNorm:
    @settings(max_examples=20, deadline=None)
    @given(GRADS, st.floats(0.01, 100), st.sampled_from([1, 2, math.inf]))
    def test_agrees_with_torch(self, grads, threshold, p):
        ours, theirs = parameters(*grads), parameters(*grads)
        report = NormClipping(threshold, p)(ours)
        torch.nn.utils.clip_grad_norm_(theirs, threshold, norm_type=p)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-8)
        assert total_norm(ours, p) <= threshold * (1 + 1e-5)
        assert report.norm_after.item() == pytest.approx(total_norm(ours), rel=1e-4, abs=1e-8)

    def test_keeps_the_direction(self):
        params = parameters([3.0, 4.0])
        NormClipping(1.0, 2)(params)
        torch.testing.assert_close(params[0].grad, torch.tensor([0.6, 0.8]))


@settings(max_examples=20, deadline=None)
@given(GRADS, st.floats(0.01, 100))
def test_value_agrees_with_torch(grads, threshold):
    ours, theirs = parameters(*grads), parameters(*grads)
    report = ValueClipping(threshold)(ours)
    torch.nn.utils.clip_grad_value_(theirs, threshold)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.grad, b.grad)
    largest = max(abs(torch.tensor(g)).max().item() for g in grads)
    assert bool(report.clipped) == (largest > torch.tensor(threshold, dtype=torch.float32).item())


def test_none_touches_nothing(tones):
    params = parameters([float("1e9")])
    made("none", tones)(params)
    assert params[0].grad.item() == 1e9


class TestSeparate:
    @settings(max_examples=13, deadline=None)
    @given(GRADS, st.floats(0.01, 100))
    def test_each_parameter_is_torchs_norm_clipping_of_itself(self, grads, threshold):
        ours, theirs = parameters(*grads), parameters(*grads)
        report = PerParameterClipping(threshold)(ours)
        for p in theirs:
            torch.nn.utils.clip_grad_norm_([p], threshold)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-8)
        assert report.norm_after.item() == pytest.approx(total_norm(ours), rel=1e-4, abs=1e-8)

    def test_a_layer_is_a_module(self):
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        for p in model.parameters():
            p.grad = torch.full_like(p, 2.0)
        expected = [p.grad.clone() for p in model.parameters()]
        clipper = PerLayerClipping(3.0)
        clipper.attach(model)
        report = clipper(model.parameters())
        # 8 elements of 2 in the first layer, 3 in the second.
        first, second = 3 / (2 * math.sqrt(8)), 3 / (2 * math.sqrt(3))
        for p, grad, scale in zip(model.parameters(), expected, (first, first, second, second), strict=True):
            torch.testing.assert_close(p.grad, grad * min(1.0, scale), rtol=1e-5, atol=0)
        assert report.clipped and report.norm_after.item() == pytest.approx(math.sqrt(18), rel=1e-5)


class TestAgc:
    def test_by_hand(self):
        """Rows of a matrix one by one, a vector as one; Brock et al. 2021, equation 3."""
        matrix, vector = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), nn.Parameter(torch.tensor([1.0, 0.0]))
        matrix.grad, vector.grad = torch.tensor([[6.0, 8.0], [3.0, 4.0]]), torch.tensor([0.1, 0.0])
        AdaptiveClipping(threshold=0.2, eps=1e-3, exclude=[])([matrix, vector])
        torch.testing.assert_close(matrix.grad, torch.tensor([[0.6, 0.8], [0.6 * 2e-4, 0.8 * 2e-4]]))
        assert torch.equal(vector.grad, torch.tensor([0.1, 0.0]))

    def test_weights_of_zero_move(self):
        p = nn.Parameter(torch.zeros(2, 2))
        p.grad = torch.ones(2, 2)
        AdaptiveClipping(threshold=0.01, eps=1e-3, exclude=[])([p])
        assert (p.grad > 0).all()

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 10**6), st.floats(0.01, 100))
    def test_as_weights_and_gradients_are_scaled_so_is_the_step(self, seed, scale):
        g = torch.Generator().manual_seed(seed)
        weight, grad = torch.randn(4, 3, generator=g) + 3, torch.randn(4, 3, generator=g)
        steps = []
        for factor in (1.0, scale):
            p = nn.Parameter(weight * factor)
            p.grad = grad * factor
            AdaptiveClipping(threshold=0.1, eps=1e-9, exclude=[])([p])
            steps.append(p.grad / factor)
        torch.testing.assert_close(steps[0], steps[1], rtol=1e-3, atol=1e-6)

    def test_what_is_excluded_is_left_alone(self):
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        clipper = AdaptiveClipping(threshold=0.01, eps=1e-3, exclude=["1."])
        clipper.attach(model)
        report = clipper(model.parameters())
        assert (model[1].weight.grad == 1).all() and (model[0].weight.grad < 1).all()
        assert report.norm_before.item() == pytest.approx(math.sqrt(11))
        assert report.norm_after.item() == pytest.approx(total_norm(list(model.parameters())))
        with pytest.raises(ValueError, match=r"exclude.*'2.'.*0.bias, 1.weight"):
            AdaptiveClipping(threshold=0.01, eps=1e-3, exclude=["2."]).attach(model)


def norms_after(clipper, norms: list[float]) -> list[float]:
    return [clipper(parameters([n, 0.0])).norm_after.item() for n in norms]


NORMS = st.lists(st.floats(0.0625, 100, width=32), min_size=1, max_size=30)


class TestHistory:
    @settings(max_examples=13, deadline=None)
    @given(NORMS, st.floats(0, 100))
    def test_autoclip_is_the_papers_loop(self, norms, percentile):
        history, expected = [], []
        for norm in norms:
            history.append(norm)
            expected.append(min(norm, float(np.percentile(np.float32(history), percentile))))
        assert norms_after(AutoClipping(percentile, 100), norms) == pytest.approx(expected, rel=1e-3)

    def test_autoclip_forgets_what_is_out_of_its_window(self):
        clipper = AutoClipping(50, window=3)
        norms_after(clipper, [100.0, 100.0, 1.0, 1.0])
        assert norms_after(clipper, [9.0]) == pytest.approx([1.0], rel=1e-5)

    @settings(max_examples=13, deadline=None)
    @given(NORMS, st.floats(0.1, 5), st.integers(1, 8))
    def test_median_by_hand(self, norms, factor, warmup):
        window, expected = 8, []
        for i, norm in enumerate(norms):
            before = norms[max(0, i - window) : i]
            expected.append(norm if i < warmup else min(norm, factor * statistics.median(before)))
        assert norms_after(MedianClipping(factor, window, warmup), norms) == pytest.approx(expected, rel=1e-3)

    @settings(max_examples=13, deadline=None)
    @given(NORMS, st.floats(0.5, 4), st.floats(0, 0.99), st.integers(2, 6))
    def test_zclip_by_hand(self, norms, z_max, alpha, warmup):
        expected, mean, variance = [], 0.0, 0.0
        for i, norm in enumerate(norms):
            if i < warmup:
                expected.append(norm)
                if i == warmup - 1:
                    mean, variance = statistics.fmean(norms[:warmup]), statistics.pvariance(norms[:warmup])
                continue
            z = (norm - mean) / (math.sqrt(variance) + 1e-12)
            after = mean + math.sqrt(variance) * z_max**2 / z if z > z_max else norm
            expected.append(after)
            mean = alpha * mean + (1 - alpha) * after
            variance = alpha * variance + (1 - alpha) * (after - mean) ** 2
        assert norms_after(ZClipping(z_max, alpha, warmup), norms) == pytest.approx(expected, rel=1e-2, abs=1e-3)

    @pytest.mark.parametrize("name", HISTORY)
    def test_as_all_norms_are_scaled_so_is_the_threshold(self, name, tones):
        g = torch.Generator().manual_seed(1)
        norms = [*(torch.rand(60, generator=g) + 0.5).tolist(), 9.0]
        one, ten = (norms_after(made(name, tones), [scale * n for n in norms]) for scale in (1.0, 10.0))
        assert ten == pytest.approx([10 * n for n in one], rel=1e-3)
        assert any(a < b for a, b in zip(one, norms, strict=True))


@pytest.mark.parametrize("curve", ["tanh", "rational"])
@settings(max_examples=13, deadline=None)
@given(norm=st.floats(0.001, 1000), threshold=st.floats(0.01, 100))
def test_soft_curves(curve, norm, threshold):
    expected = threshold * math.tanh(norm / threshold) if curve == "tanh" else norm * threshold / (norm + threshold)
    assert norms_after(SoftClipping(threshold, curve), [norm]) == pytest.approx([expected], rel=1e-4)
    assert expected <= threshold


class TestShear:
    def test_a_share_of_the_largest_stays(self):
        params = parameters([1.0, -5.0, 0.5], [[4.0, -0.1], [2.0, 0.2]])
        report = ShearClipping(keep=3 / 7, threshold=None, error_feedback=False, sample=100)(params)
        assert params[0].grad.tolist() == [0, -5, 0] and params[1].grad.tolist() == [[4, 0], [2, 0]]
        assert report.clipped

    def test_a_threshold(self):
        params = parameters([1.0, -0.99])
        ShearClipping(keep=None, threshold=1.0, error_feedback=False, sample=100)(params)
        assert params[0].grad.tolist() == [1.0, 0.0]

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 10**6), st.floats(0.05, 1.0), st.integers(1, 12))
    def test_with_feedback_nothing_is_lost(self, seed, keep, n_steps):
        clipper, g = ShearClipping(keep, None, True, 100), torch.Generator().manual_seed(seed)
        given_in, let_out = torch.zeros(6), torch.zeros(6)
        for _ in range(n_steps):
            grad = torch.randn(6, generator=g)
            params = parameters(grad.tolist())
            clipper(params)
            given_in, let_out = given_in + grad, let_out + params[0].grad
        torch.testing.assert_close(let_out + clipper.state_dict()["kept"][0], given_in, rtol=1e-4, atol=1e-5)

    def test_what_is_kept_waits_for_its_gradient(self):
        """A weight without a gradient gets none, and what was kept of it comes with its next one."""
        clipper = ShearClipping(None, 1.0, True, 100)
        a, b = parameters([0.75], [0.5])
        clipper([a, b])
        assert a.grad.item() == b.grad.item() == 0
        a.grad, b.grad = None, torch.tensor([0.25])
        clipper([a, b])
        assert a.grad is None and b.grad.item() == 0
        again = ShearClipping(None, 1.0, True, 100)
        again.load_state_dict(clipper.state_dict())
        a.grad, b.grad = torch.tensor([0.5]), torch.tensor([0.25])
        report = again([a, b])
        assert a.grad.item() == 1.25 and b.grad.item() == 1.0 and not report.clipped

    def test_the_limit_of_many_is_estimated_well(self):
        grad = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
        params = parameters(grad)
        ShearClipping(keep=0.1, threshold=None, error_feedback=False, sample=10_000)(params)
        assert (params[0].grad != 0).float().mean().item() == pytest.approx(0.1, abs=0.01)


def test_skip_asks_for_the_step_to_be_left_out():
    clipper = SkipClipping(5.0)
    assert not clipper(parameters([3.0, 4.0])).skip
    report = clipper(parameters([3.0, 4.1]))
    assert report.skip and report.clipped and report.norm_after.item() == 0


def test_a_sequence_is_one_after_the_other():
    ours, theirs = parameters([3.0, 0.1]), parameters([3.0, 0.1])
    report = SequenceClipping(ValueClipping(1.0), NormClipping(0.5, 2))(ours)
    torch.nn.utils.clip_grad_value_(theirs, 1.0)
    torch.nn.utils.clip_grad_norm_(theirs, 0.5)
    torch.testing.assert_close(ours[0].grad, theirs[0].grad)
    assert report.norm_before.item() == pytest.approx(math.hypot(3, 0.1)) and report.norm_after.item() == pytest.approx(
        0.5
    )
    skipping = SequenceClipping(SkipClipping(1.0), NormClipping(0.5, 2))(parameters([3.0]))
    assert skipping.skip and skipping.norm_after.item() == 0


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["clipping=norm", "clipping.threshold=0"], "clipping.threshold must be positive, 0 came; clipping=none"),
        (["clipping=norm", "clipping.threshold=-1.0"], "clipping.threshold must be positive, -1.0 came"),
        (["clipping=norm", "clipping.p=3"], "clipping.p must be 1, 2 or .inf, 3 came"),
        (["clipping=value", "clipping.threshold=0"], "clipping.threshold must be positive"),
        (["clipping=per_layer", "clipping.threshold=0"], "clipping.threshold must be positive"),
        (["clipping=per_parameter", "clipping.threshold=0"], "clipping.threshold must be positive"),
        (["clipping=agc", "clipping.eps=0"], "clipping.eps must be positive"),
        (["clipping=autoclip", "clipping.percentile=101"], "clipping.percentile is between 0 and 100, 101 came"),
        (["clipping=autoclip", "clipping.window=1"], "clipping.window must be at least 2 steps, 1 came"),
        (
            ["clipping=median", "clipping.warmup=0"],
            "clipping.warmup is between 1 and clipping.window=100 steps, 0 came",
        ),
        (["clipping=zclip", "clipping.alpha=1"], "clipping.alpha is at least 0 and below 1, 1 came"),
        (["clipping=zclip", "clipping.warmup=1"], "clipping.warmup must be at least 2 steps, 1 came"),
        (["clipping=soft", "clipping.curve=hard"], "clipping.curve=hard; choose from: rational, tanh"),
        (["clipping=shear", "clipping.keep=0"], "clipping.keep is a share, above 0 and at most 1, 0 came"),
        (["clipping=shear", "clipping.threshold=1"], "one of clipping.keep and clipping.threshold is null"),
        (["clipping=skip", "clipping.threshold=nan"], "clipping.threshold must be positive, nan came"),
    ],
)
@pytest.mark.quick(5)
def test_values_that_cannot_be_are_one_line(overrides, says, tones):
    with pytest.raises(ConfigError) as error:
        make(resolved(composed(*tiny(tones, *overrides))), "clipping")
    assert says in str(error.value) and "\n" not in str(error.value)
