"""Optimizers of our own: by hand on small problems, at the optimum of convex ones, read-outs as their closed form."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_lab.optim.approximate import (
    QuantumGradient,
    QuantumReadout,
    Spsa,
    outcome_probabilities,
    sample_outcomes,
)
from asr_lab.optim.sam import Sam
from asr_lab.optim.subgradient import RULES, Subgradient


def weight(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values))


def closure_of(optimizer, loss):
    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


def subgradient(params, **keys):
    return Subgradient(
        params,
        **{"lr": 0.1, "rule": "constant", "best_loss": 0.0, "weight_decay": 0.0, "average": "none", "eta": 0.0} | keys,
    )


class TestSubgradient:
    def test_steps_by_hand(self):
        """f(w) = |w1| + 2 |w2| at (3, -1): g = (1, -2), f = 5."""
        expected = {
            "constant": (2.9, -0.8),
            "length": (3 - 0.1 / math.sqrt(5), -1 + 0.2 / math.sqrt(5)),
            "diminishing": (2.9, -0.8),
            "polyak": (3 - 0.1 * 4.5 / 5, -1 + 0.1 * 2 * 4.5 / 5),
        }
        for rule in RULES:
            w = weight(3.0, -1.0)
            optimizer = subgradient([w], rule=rule, best_loss=0.5)
            optimizer.step(closure_of(optimizer, lambda w=w: w[0].abs() + 2 * w[1].abs()))
            assert w.tolist() == pytest.approx(expected[rule]), rule

    def test_diminishing_steps(self):
        w = weight(0.0)
        optimizer = subgradient([w], rule="diminishing")
        for _ in range(3):
            w.grad = torch.ones(1)
            optimizer.step()
        assert w.item() == pytest.approx(-0.1 * (1 + 1 / math.sqrt(2) + 1 / math.sqrt(3)))

    def test_groups_have_their_own_rates_and_decay(self):
        a, b = weight(1.0), weight(2.0)
        optimizer = subgradient([{"params": [a], "weight_decay": 0.5}, {"params": [b], "lr": 0.2}])
        a.grad, b.grad = torch.ones(1), torch.ones(1)
        optimizer.step()
        assert (a.item(), b.item()) == (pytest.approx(1 - 0.1 * 1.5), pytest.approx(2 - 0.2))

    @pytest.mark.parametrize(("rule", "lr"), [("diminishing", 2.0), ("polyak", 1.0)])
    def test_finds_the_median(self, rule, lr):
        """The least sum of distances on a line is at the median: a function of kinks only."""
        points, w = torch.tensor([0.0, 1.0, 5.0, 6.0, 40.0]), weight(30.0)
        optimizer = subgradient([w], rule=rule, lr=lr, best_loss=(5 + 4 + 0 + 1 + 35) / 5)
        best = min(optimizer.step(closure_of(optimizer, lambda: (points - w).abs().mean())).item() for _ in range(600))
        assert best == pytest.approx(9.0, abs=0.05)

    def test_needs_a_closure_for_the_loss(self):
        w = weight(1.0)
        w.grad = torch.ones(1)
        with pytest.raises(ValueError, match="polyak needs a closure"):
            subgradient([w], rule="polyak").step()

    @pytest.mark.parametrize("keys", [{"rule": "fast"}, {"lr": 0.0}, {"weight_decay": -1.0}, {"best_loss": math.inf}])
    def test_values_that_cannot_be(self, keys):
        with pytest.raises(ValueError, match=next(iter(keys))):
            subgradient([weight(1.0)], **keys)


def sam(params, base, rho, adaptive):
    return Sam(params, base, lr=0.1, weight_decay=0.0, rho=rho, adaptive=adaptive)


class TestSam:
    def test_a_step_by_hand(self):
        """f(w) = w1^2 + 3 w2^2 at (1, 1): climb along (2, 6) / sqrt(40), descend with the gradient from there."""
        w = weight(1.0, 1.0)
        optimizer = sam([w], torch.optim.SGD, rho=0.5, adaptive=False)
        optimizer.step(closure_of(optimizer, lambda: w[0] ** 2 + 3 * w[1] ** 2))
        there = (1 + 0.5 * 2 / math.sqrt(40), 1 + 0.5 * 6 / math.sqrt(40))
        assert w.tolist() == pytest.approx([1 - 0.1 * 2 * there[0], 1 - 0.1 * 6 * there[1]])

    def test_adaptive_by_hand(self):
        w = weight(2.0, -1.0)
        optimizer = sam([w], torch.optim.SGD, rho=0.5, adaptive=True)
        optimizer.step(closure_of(optimizer, lambda: 0.5 * (w**2).sum()))
        norm = math.hypot(2 * 2, 1 * 1)  # of |w| g
        there = (2 + 0.5 * 4 * 2 / norm, -1 + 0.5 * 1 * -1 / norm)
        assert w.tolist() == pytest.approx([2 - 0.1 * there[0], -1 - 0.1 * there[1]])

    def test_a_schedule_moves_the_inner_rate_and_its_state_is_saved(self):
        w = weight(1.0)
        optimizer = sam([w], torch.optim.Adam, rho=0.05, adaptive=False)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        optimizer.step(closure_of(optimizer, lambda: w**2))
        schedule.step()
        assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.05)
        other = sam([weight(1.0)], torch.optim.Adam, rho=0.05, adaptive=False)
        other.load_state_dict(optimizer.state_dict())
        assert other.param_groups[0]["lr"] == pytest.approx(0.05) and other.base.param_groups is other.param_groups
        assert next(iter(other.state.values()))["step"] == 1

    def test_needs_a_closure(self):
        with pytest.raises(ValueError, match="SAM needs a closure"):
            sam([weight(1.0)], torch.optim.SGD, rho=0.1, adaptive=False).step()


def spsa(params, **keys):
    values = {"lr": 0.1, "c": 0.01, "alpha": 0.0, "gamma": 0.0, "stability": 0.0, "seed": 0, "weight_decay": 0.0}
    return Spsa(params, **values | keys)


class TestSpsa:
    def test_a_step_by_hand(self):
        """Of a linear function the two losses give the slope along the signs exactly."""
        w = weight(1.0, 2.0, 3.0)
        slope = torch.tensor([1.0, -2.0, 0.5])
        optimizer = spsa([w], c=0.5)
        signs = optimizer._signs([w], 0)[0]
        optimizer.step(closure_of(optimizer, lambda: torch.sum(slope * w)))
        expected = torch.tensor([1.0, 2.0, 3.0]) - 0.1 * (slope @ signs) * signs
        torch.testing.assert_close(w.data, expected, rtol=1e-4, atol=1e-5)

    def test_the_mean_over_signs_is_the_gradient(self):
        slope, w = torch.tensor([1.0, -2.0, 0.5]), weight(0.0, 0.0, 0.0)
        optimizer = spsa([w], c=0.5, lr=1e-3)
        for _ in range(2000):
            optimizer.step(closure_of(optimizer, lambda: torch.sum(slope * w)))
        torch.testing.assert_close(w.data / -2.0, slope, rtol=0, atol=0.2)

    def test_reaches_the_optimum_of_a_bowl(self):
        w = weight(3.0, -2.0)
        optimizer = spsa([w], lr=0.2, alpha=0.602, gamma=0.101, stability=10.0)
        for _ in range(800):
            optimizer.step(closure_of(optimizer, lambda: torch.sum((w - 1) ** 2)))
        assert w.tolist() == pytest.approx([1.0, 1.0], abs=0.05)

    def test_goes_on_with_the_same_signs(self):
        one, two = weight(1.0, 2.0), weight(1.0, 2.0)
        a, b = spsa([one]), spsa([two])
        for _ in range(3):
            a.step(closure_of(a, lambda: torch.sum(one**2)))
        for _ in range(2):
            b.step(closure_of(b, lambda: torch.sum(two**2)))
        later = spsa([two])
        later.load_state_dict(b.state_dict())
        later.step(closure_of(later, lambda: torch.sum(two**2)))
        assert torch.equal(one, two)

    def test_needs_a_closure(self):
        with pytest.raises(ValueError, match="SPSA needs a closure"):
            spsa([weight(1.0)]).step()


class TestQuantumReadout:
    @settings(max_examples=30, deadline=None)
    @given(st.floats(-0.5, 0.499), st.integers(1, 8))
    def test_probabilities_are_those_of_the_fourier_transform(self, phase, n_qubits):
        """Against the amplitudes: the state sum_j exp(2 pi i j x) |j>, transformed back."""
        n = 2**n_qubits
        j = torch.arange(n, dtype=torch.double)
        state = torch.polar(torch.full((n,), 1 / math.sqrt(n), dtype=torch.double), 2 * math.pi * j * phase)
        expected = (torch.fft.fft(state) / math.sqrt(n)).abs().square()
        found = outcome_probabilities(torch.full((n,), phase, dtype=torch.double), j, n_qubits)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("n_qubits", [1, 2, 3, 5])
    @pytest.mark.parametrize("phase", [0.0, 0.137, -0.31, 0.4999, -0.5])
    def test_outcomes_have_that_distribution(self, phase, n_qubits):
        """Chi-square over outcomes that are expected at least five times, the others together."""
        n_samples, n = 20_000, 2**n_qubits
        generator = torch.Generator().manual_seed(1)
        found = sample_outcomes(torch.full((n_samples,), phase, dtype=torch.double), n_qubits, generator)
        seen = torch.bincount(found, minlength=n).double()
        of_all = torch.full((n,), phase, dtype=torch.double)
        expected = n_samples * outcome_probabilities(of_all, torch.arange(n, dtype=torch.double), n_qubits)
        common = expected >= 5
        observed, wanted = seen[common].tolist(), expected[common].tolist()
        rest = float(expected[~common].sum())
        if rest >= 5:
            observed, wanted = [*observed, float(seen[~common].sum())], [*wanted, rest]
        if len(wanted) > 1:
            scale = sum(observed) / sum(wanted)
            assert scale == pytest.approx(1, abs=0.01)
            assert scipy.stats.chisquare(observed, [w * scale for w in wanted]).pvalue > 1e-3
        else:
            assert observed == [n_samples]

    @pytest.mark.parametrize("success", [0.5, 0.9, 0.99])
    def test_bits_are_right_as_often_as_promised(self, success):
        readout, generator = QuantumReadout(bits=5, success=success), torch.Generator().manual_seed(0)
        g = torch.rand(20_000, generator=generator, dtype=torch.double) * 1.9 - 0.95
        error = (readout(g, 1.0, generator) - g).abs()
        error = torch.minimum(error, 2 - error)  # a phase wraps around
        assert (error <= 2 / 2**5).double().mean() >= success

    def test_many_bits_are_the_gradient(self):
        g, generator = torch.tensor([0.5, -0.3, 0.0]), torch.Generator().manual_seed(0)
        torch.testing.assert_close(QuantumReadout(12, 0.99)(g, 1.0, generator), g, rtol=0, atol=2 / 2**12)

    @pytest.mark.parametrize("bits", [2, 3, 4, 6])
    def test_the_largest_element_keeps_its_sign(self, bits):
        """Trap: at the very top of a register, rounding wraps around to the other end."""
        for slope in (1.0, -1.0):
            w = weight(0.0)
            optimizer = QuantumGradient([w], lr=1.0, bits=bits, success=0.99, scale=None, seed=0, weight_decay=0.0)
            optimizer.step(closure_of(optimizer, lambda w=w, slope=slope: torch.sum(slope * w)))
            assert w.item() == pytest.approx(-slope, abs=0.6)

    def test_descends_a_bowl(self):
        w = weight(3.0, -2.0)
        optimizer = QuantumGradient([w], lr=0.1, bits=6, success=0.9, scale=None, seed=0, weight_decay=0.0)
        for _ in range(200):
            optimizer.step(closure_of(optimizer, lambda: 0.5 * ((w - 1) ** 2).sum()))
        assert w.tolist() == pytest.approx([1.0, 1.0], abs=0.1)

    @pytest.mark.parametrize("keys", [{"bits": 0}, {"bits": 18}, {"success": 1.0}, {"scale": 0.0}, {"lr": -1.0}])
    def test_values_that_cannot_be(self, keys):
        values = {"lr": 0.1, "bits": 6, "success": 0.9, "scale": None, "seed": 0, "weight_decay": 0.0} | keys
        with pytest.raises(ValueError, match=next(iter(keys))):
            QuantumGradient([weight(1.0)], **values)
