"""The filter of utterances inside recurrent encoders: what is left, to the last weight."""

import copy

import pytest
import torch
from torch import nn

from asr_lab.encoders.recurrent import RecurrentEncoder
from asr_lab.files import read_jsonl
from asr_lab.layers.connection import Plain
from asr_lab.layers.gradient_filter import NoFilter, PerUtteranceFilter
from asr_lab.layers.readout import Frames
from asr_lab.layers.recurrence import VanillaRnn
from asr_lab.layers.subsampling import Stacking

from .test_recurrent import CELLS, HIDDEN, IN

LENS = torch.tensor([9, 7, 8, 9, 5])


def encoder(chosen, cell="lstm", n_layers=2, bidirectional=True) -> RecurrentEncoder:
    torch.manual_seed(0)
    made = RecurrentEncoder(
        IN,
        HIDDEN,
        n_layers,
        bidirectional,
        layer_norm=False,
        dropout=0.0,
        subsampling=lambda in_dim, out_dim: Stacking(in_dim, out_dim, 1, 1),
        cell=CELLS[cell],
        connection=Plain,
        filter=chosen,
        readout=Frames,
    )
    for p in made.parameters():
        nn.init.normal_(p, std=0.3)
    return made


def gradients(model: RecurrentEncoder, spikes=(), without=(), scale: float = 1e4) -> dict[str, torch.Tensor]:
    """Of a weighted sum over all frames, in which `spikes` weigh `scale` times as much and `without` nothing; of the
    input, too."""
    x = torch.randn(5, 9, IN, generator=torch.Generator().manual_seed(1)).requires_grad_()
    model.zero_grad()
    hidden, _ = model(x, LENS)
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    weights[list(spikes)] *= scale
    weights[list(without)] = 0
    (hidden * weights).sum().backward()
    return {"x": x.grad} | {name: p.grad for name, p in model.named_parameters()}


class TestFilter:
    @pytest.mark.parametrize("cell", [c for c in CELLS if c != "ligru"])
    @pytest.mark.parametrize("bidirectional", [False, True])
    def test_a_spike_leaves_the_gradient_of_the_others(self, cell, bidirectional):
        model = encoder(PerUtteranceFilter(10.0), cell, bidirectional=bidirectional)
        got = gradients(model, spikes=[1])
        assert model.filter.take() == 1  # the layer below sees zeros, which are nothing to leave out
        want = gradients(encoder(NoFilter(), cell, bidirectional=bidirectional), without=[1])
        torch.testing.assert_close(got, want)
        assert (got["x"][1] == 0).all() and (got["x"][0, 0] != 0).any()

    def test_batch_norm_spreads_a_gradient_but_what_is_left_is_exact(self):
        """LiGRU normalises over the batch, so that a spike reaches every utterance's input and stands out less."""
        model = encoder(PerUtteranceFilter(2.0), "ligru", n_layers=1)
        got = gradients(model, spikes=[2])
        assert model.filter.take() == 1
        torch.testing.assert_close(got, gradients(encoder(NoFilter(), "ligru", n_layers=1), without=[2]))

    def test_each_layer_decides_by_itself(self):
        """The spike comes in between two layers: the upper one keeps the utterance, the lower one leaves it out."""

        def spiked(grad: torch.Tensor) -> torch.Tensor:
            return grad * torch.tensor([1.0, 1e4, 1.0, 1.0, 1.0])[:, None, None]

        model, plain = encoder(PerUtteranceFilter(10.0)), encoder(NoFilter())
        model.connections[0].register_forward_hook(lambda module, args, y: y.register_hook(spiked) and None)
        got, of_all, of_others = gradients(model), gradients(plain), gradients(plain, without=[1])
        assert model.filter.take() == 1
        for name, gradient in got.items():
            torch.testing.assert_close(gradient, (of_all if name.startswith("layers.1") else of_others)[name])

    def test_an_explosion_inside_the_recurrence_is_seen_there(self):
        """All utterances weigh the same above; in the last one the states are small, so that tanh lets grow what goes
        back through a matrix of 1.5 times a rotation."""
        chosen, lens = PerUtteranceFilter(5.0), torch.full((5,), 30)
        cell = VanillaRnn(4, 4, "tanh", "orthogonal").train()
        cell.weights[1].data.mul_(1.5)
        cell.weights[0].data.copy_(torch.eye(4))
        x = (
            torch.randn(5, 30, 4, generator=torch.Generator().manual_seed(1))
            * torch.tensor([3.0] * 4 + [1e-6])[:, None, None]
        )
        mask = torch.ones(5, 30, dtype=torch.bool)
        assert lens.sum() == mask.sum()

        def weights(chosen, n: int):
            cell.zero_grad()
            chosen(lambda x: cell(x, mask[: len(x)])[0], x[:n], cell)[:, -1].sum().backward()
            return [p.grad.clone() for p in cell.parameters()]

        torch.testing.assert_close(weights(chosen, 5), weights(NoFilter(), 4))
        assert chosen.take() == 1
        assert not torch.allclose(weights(NoFilter(), 5)[1], weights(NoFilter(), 4)[1], rtol=0.5)

    @pytest.mark.parametrize("cell", CELLS)
    def test_nothing_above_the_threshold_is_bit_for_bit_no_filter(self, cell):
        high = encoder(PerUtteranceFilter(1e30), cell)
        got, want = gradients(high, spikes=[1]), gradients(encoder(NoFilter(), cell), spikes=[1])
        assert all(torch.equal(got[name], want[name]) for name in want)
        assert high.filter.take() == 0

    def test_what_goes_forward_is_the_same_and_evaluation_is_not_filtered(self):
        model, plain = encoder(PerUtteranceFilter(1.0)), encoder(NoFilter())
        x = torch.randn(5, 9, IN)
        assert torch.equal(model(x, LENS)[0], plain(x, LENS)[0])
        got, want = gradients(model.eval(), spikes=[1]), gradients(plain.eval(), spikes=[1])
        assert all(torch.equal(got[name], want[name]) for name in want)

    def test_frozen_weights_and_copies(self):
        model = encoder(PerUtteranceFilter(10.0))
        frozen = model.layers[1].cells[0].kernel.weight_hh_l0.requires_grad_(False)
        want = gradients(encoder(NoFilter()), without=[1])
        got = gradients(copy.deepcopy(model), spikes=[1])
        name = next(n for n, p in model.named_parameters() if p is frozen)
        assert got.pop(name) is None and want.pop(name) is not None
        torch.testing.assert_close(got, want)


def norms_of(*norms: float) -> torch.Tensor:
    """(B,2,2) gradients with these norms"""
    return torch.tensor(norms)[:, None, None].expand(-1, 2, 2) / 2


class TestRule:
    nan, inf = float("nan"), float("inf")

    @pytest.mark.parametrize(
        ("norms", "kept"),
        [
            ((1.0, 1.0, 3.0), (True, True, False)),
            ((1.0, 1.0, 2.0), (True, True, True)),  # exactly the threshold
            ((1.0, 3.0), (True, False)),  # the lower of two is the median
            ((5.0,), (True,)),  # alone
            ((0.0, 0.0, 0.0, 4.0), (True, True, True, True)),  # zeros have no say
            ((0.0, 0.0), (True, True)),
            ((1.0, 1.0, inf), (True, True, False)),
            ((1.0, nan, 1.0), (True, False, True)),
            ((nan, inf), (True, True)),  # the step will be left out
        ],
    )
    def test_by_hand(self, norms, kept):
        chosen = PerUtteranceFilter(2.0)
        assert tuple(chosen.kept(norms_of(*norms), scaled=False).tolist()) == kept
        assert chosen.take() == len(kept) - sum(kept) and chosen.take() == 0

    def test_a_scaler_sees_what_overflows(self):
        kept = PerUtteranceFilter(2.0).kept(norms_of(1.0, 1.0, self.inf, 3.0), scaled=True)
        assert kept.tolist() == [True, True, True, False]

    def test_an_exploded_utterance_poisons_nothing(self):
        got = gradients(encoder(PerUtteranceFilter(10.0)), spikes=[1], scale=self.inf)
        torch.testing.assert_close(got, gradients(encoder(NoFilter()), without=[1]))

    @pytest.mark.parametrize("threshold", [0.0, -1.0, 0.99, float("nan")])
    def test_thresholds_that_cannot_be(self, threshold):
        with pytest.raises(ValueError, match=r"filter\.threshold is a multiple of the median norm, at least 1"):
            PerUtteranceFilter(threshold)


def test_a_run_logs_how_many(trained):
    short = ("encoder=gru", "trainer.max_epochs=1", "trainer.log_every_n_steps=1", "encoder/filter=per_utterance")
    run, result = trained(*short, "encoder.filter.threshold=1.01")
    filtered = [row["train/filtered"] for row in read_jsonl(run.metrics_file) if "train/filtered" in row]
    assert result["status"] == "done" and len(filtered) == result["steps"] and sum(filtered) > 0
    assert result["factors"]["encoder/filter"] == "per_utterance"
