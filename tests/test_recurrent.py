"""Recurrent cells against their equations and PyTorch's own modules, and what a recurrent encoder is put together of.

What every encoder must do is in test_encoders.py; here is what only these have.
"""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr_lab import cost
from asr_lab.build import call
from asr_lab.encoders.recurrent import RecurrentEncoder
from asr_lab.errors import ConfigError
from asr_lab.layers import connection, readout
from asr_lab.layers.gradient_filter import NoFilter
from asr_lab.layers.ligru import LiGru, _Frames
from asr_lab.layers.recurrence import INITS, Gru, Lstm, VanillaRnn
from asr_lab.layers.subsampling import Stacking
from asr_lab.sweep.cell import resolved

from .conftest import choices, composed, tiny

IN, HIDDEN = 6, 5
CELLS = {
    "rnn_tanh": lambda in_dim, d_hidden: VanillaRnn(in_dim, d_hidden, "tanh", "orthogonal"),
    "rnn_relu": lambda in_dim, d_hidden: VanillaRnn(in_dim, d_hidden, "relu", "identity"),
    "lstm": lambda in_dim, d_hidden: Lstm(in_dim, d_hidden, "orthogonal", 1.0),
    "gru": lambda in_dim, d_hidden: Gru(in_dim, d_hidden, "orthogonal"),
    "ligru": lambda in_dim, d_hidden: LiGru(in_dim, d_hidden, "orthogonal"),
}
# PyTorch's modules of one frame: another way to the same numbers.
TORCH_CELLS = {
    "rnn_tanh": lambda: nn.RNNCell(IN, HIDDEN),
    "rnn_relu": lambda: nn.RNNCell(IN, HIDDEN, nonlinearity="relu"),
    "lstm": lambda: nn.LSTMCell(IN, HIDDEN),
    "gru": lambda: nn.GRUCell(IN, HIDDEN),
}


def make(name: str, in_dim: int = IN, d_hidden: int = HIDDEN):
    """A cell of arbitrary weights, biases that are not zero included."""
    torch.manual_seed(0)
    cell = CELLS[name](in_dim, d_hidden)
    for p in cell.parameters():
        nn.init.normal_(p, std=0.4)
    return cell


def speech(lens: list[int], width: int = IN) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(len(lens), max(lens), width, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(max(lens)) < torch.tensor(lens)[:, None]


def encoder(cell="lstm", n_layers=2, bidirectional=False, layer_norm=False, link=connection.Plain, out=readout.Frames):
    torch.manual_seed(0)
    return RecurrentEncoder(
        IN,
        HIDDEN,
        n_layers,
        bidirectional,
        layer_norm,
        dropout=0.0,
        subsampling=lambda in_dim, out_dim: Stacking(in_dim, out_dim, 1, 1),
        cell=CELLS[cell],
        connection=link,
        filter=NoFilter(),
        readout=out,
    ).eval()


class TestCells:
    def test_all_are_here(self):
        assert sorted(CELLS) == choices("encoder/cell")

    @pytest.mark.parametrize("name", TORCH_CELLS)
    def test_a_step_is_pytorchs_cell(self, name):
        cell, other = make(name), TORCH_CELLS[name]()
        other.load_state_dict({key: cell.kernel.state_dict()[f"{key}_l0"] for key in other.state_dict()})
        x, mask = speech([3])
        state = tuple(torch.randn(1, HIDDEN) for _ in range(cell.n_states))
        want = other(x[:, 0], state if name == "lstm" else state[0])
        got = cell.step(cell.project(x, mask)[:, 0], state)
        torch.testing.assert_close(got, want if name == "lstm" else (want,))

    def test_a_step_of_ligru_by_hand(self):
        """One input, one unit; BN in evaluation with mean 0.5, variance 4, scale 2, shift 0.1 for both gates."""
        cell = LiGru(1, 1, "orthogonal").eval()
        cell.norm.eps = 0.0
        for tensor, values in (
            (cell.input.weight, [[1.0], [3.0]]),
            (cell.weight_hh, [[0.5], [-1.0]]),
            (cell.norm.weight, [2.0, 2.0]),
            (cell.norm.bias, [0.1, 0.1]),
            (cell.norm.running_mean, [0.5, 0.5]),
            (cell.norm.running_var, [4.0, 4.0]),
        ):
            tensor.data.copy_(torch.tensor(values))
        hidden, _ = cell(torch.tensor([[[1.0]]]), torch.ones(1, 1, dtype=torch.bool), (torch.tensor([[0.4]]),))
        z = 1 / (1 + torch.tensor(-(0.6 + 0.5 * 0.4)).exp())  # 0.6 = (1 * 1 - 0.5) / 2 * 2 + 0.1
        c = 2.6 - 1.0 * 0.4  # 2.6 = (3 * 1 - 0.5) / 2 * 2 + 0.1
        torch.testing.assert_close(hidden, (z * 0.4 + (1 - z) * c).view(1, 1, 1))

    @pytest.mark.parametrize("name", CELLS)
    def test_all_frames_are_the_steps_one_after_another(self, name):
        """Outputs, the last state and all gradients, in training mode, with a state to begin with and padding."""
        x, mask = speech([9, 6])
        results = []
        for fast in (True, False):
            cell, leaf = make(name).train(), x.clone().requires_grad_()
            start = [torch.full((2, HIDDEN), 0.3 + i, requires_grad=True) for i in range(cell.n_states)]
            if fast:
                hidden, state = cell(leaf, mask, tuple(start))
            else:
                gates, state, frames = cell.project(leaf, mask), tuple(start), []
                for u in range(9):
                    state = cell.step(gates[:, u], state)
                    frames.append(state[0])
                hidden = torch.stack(frames, dim=1)
            weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3)) * mask[:, :, None]
            (hidden * weights).sum().backward()
            results.append([hidden, *state, leaf.grad, *(s.grad for s in start), *(p.grad for p in cell.parameters())])
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)

    def test_gradient_of_ligru_numerically(self):
        generator = torch.Generator().manual_seed(0)
        shapes = [(4, 2, 6), (6, 3), (2, 3)]
        inputs = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
        assert torch.autograd.gradcheck(_Frames.apply, inputs)

    @pytest.mark.parametrize("name", CELLS)
    def test_on_the_meta_device_the_same_work_is_counted(self, name):
        """U frames of n_gates * d_hidden * (D_in + d_hidden) products, which a loop over time has too."""
        cell, (x, mask) = make(name), speech([11])
        counter = cost.FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            hidden, state = cell.to("meta")(x.to("meta"), mask.to("meta"))
        assert counter.get_total_flops() // 2 == 11 * cell.n_gates * HIDDEN * (IN + HIDDEN)
        assert hidden.shape == (1, 11, HIDDEN)
        assert [s.shape for s in state] == [(1, HIDDEN)] * cell.n_states

    @pytest.mark.parametrize("name", CELLS)
    def test_float16_autocast_on_cpu_keeps_close(self, name):
        cell, (x, mask) = make(name).eval(), speech([9])
        want, state = cell(x, mask)
        with torch.autocast("cpu", torch.float16), torch.no_grad():
            got, _ = cell(x, mask)
            again, _ = cell(x, mask, state)  # a state of another type is taken
        torch.testing.assert_close(got.float(), want, rtol=1e-2, atol=1e-2)
        assert torch.isfinite(again).all()


class TestInitialisation:
    @pytest.mark.parametrize("how", INITS)
    def test_recurrent_weights(self, how):
        weight = Gru(IN, 16, how).weights[1]
        if how == "orthogonal":
            torch.testing.assert_close(weight.t() @ weight, torch.eye(16))
        elif how == "identity":
            torch.testing.assert_close(weight, torch.eye(16).repeat(3, 1))
        else:
            assert 0.2 < weight.abs().max() <= 0.25

    @pytest.mark.parametrize("forget_bias", [0.0, 1.0])
    def test_forget_gates_start_open_or_not(self, forget_bias):
        """With no input the cell keeps sigmoid(bias) of what it remembers; no other bias is there."""
        cell = Lstm(IN, HIDDEN, "orthogonal", forget_bias)
        x, mask = torch.zeros(1, 1, IN), torch.ones(1, 1, dtype=torch.bool)
        _, (_, c) = cell(x, mask, (torch.zeros(1, HIDDEN), torch.ones(1, HIDDEN)))
        torch.testing.assert_close(c, torch.full((1, HIDDEN), torch.tensor(forget_bias).sigmoid().item()))

    @pytest.mark.parametrize("how", INITS)
    def test_relu_does_not_explode(self, how):
        """A random walk at most, which grows with the root of time (20 here); a spectral radius of 1.4 gives inf."""
        torch.manual_seed(0)
        cell, x = VanillaRnn(40, 64, "relu", how), torch.randn(4, 400, 40, requires_grad=True)
        hidden, _ = cell(x, torch.ones(4, 400, dtype=torch.bool))
        assert hidden[:, -1].norm() < 40 * hidden[:, 0].norm()
        [gradient] = torch.autograd.grad(hidden[:, -1].sum(), x)
        assert gradient[:, 0].norm() < 2 * gradient[:, -1].norm()


class TestEncoder:
    def test_both_directions_are_pytorchs_packed_lstm(self):
        ours = encoder("lstm", bidirectional=True)
        theirs = nn.LSTM(IN, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
        for i, layer in enumerate(ours.layers):
            for cell, suffix in zip(layer.cells, ("", "_reverse"), strict=True):
                for key, value in cell.kernel.named_parameters():
                    getattr(theirs, key.replace("l0", f"l{i}{suffix}")).data.copy_(value)
        x, mask = speech([12, 9, 4])
        lens = mask.sum(dim=1)
        packed, (h, _) = theirs(pack_padded_sequence(x, lens, batch_first=True))
        torch.testing.assert_close(ours(x, lens)[0], pad_packed_sequence(packed, batch_first=True)[0])

        ours.readout = readout.LastState(2 * HIDDEN, n_directions=2)
        hidden, out_lens = ours(x, lens)
        torch.testing.assert_close(hidden[:, 0], torch.cat([h[-2], h[-1]], dim=-1))  # last layer: ahead, back
        assert torch.equal(out_lens, torch.ones(3, dtype=torch.long))

    @pytest.mark.parametrize("cell", CELLS)
    @pytest.mark.parametrize("choice", ["Plain", "Projection", "Residual"])
    def test_connected_layers_stream(self, cell, choice):
        link = getattr(connection, choice)
        if choice == "Projection":
            link = lambda in_dim, out_dim: connection.Projection(in_dim, out_dim, 3)  # noqa: E731
        model = encoder(cell, n_layers=3, layer_norm=True, link=link)
        x, mask = speech([11, 11])
        with torch.no_grad():
            whole, _ = model(x, mask.sum(dim=1))
            state, pieces = None, []
            for piece in x.split([1, 4, 1, 5], dim=1):
                hidden, state = model.stream(piece, state)
                pieces.append(hidden)
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
        assert model.connections[0].out_dim == (3 if choice == "Projection" else HIDDEN)

    def test_residual_adds_what_the_layer_read(self):
        plain, residual = encoder(n_layers=3), encoder(n_layers=3, link=connection.Residual)
        x, mask = speech([8])
        mirrored = torch.zeros(1)
        first = plain.layers[0](x, mask, mirrored)  # 6 features to 5: nothing to add
        second = first + plain.layers[1](first, mask, mirrored)
        torch.testing.assert_close(residual(x, mask.sum(1))[0], plain.layers[2](second, mask, mirrored))

    def test_only_one_direction_with_frames_streams(self):
        assert encoder().stream_frames == 1
        assert encoder(bidirectional=True).stream_frames is None
        assert encoder(out=readout.Mean).stream_frames is None

    def test_one_vector_for_an_utterance_hears_it_all(self):
        model = encoder(out=readout.LastState)
        assert model.receptive_field[:2] == (float("inf"), float("inf"))
        assert model.output_lengths(torch.tensor([7, 1, 0])).tolist() == [1, 1, 0]


class TestReadouts:
    HIDDEN = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [6.0, 60.0]], [[3.0, 30.0], [5.0, 50.0], [float("nan")] * 2]])
    LENS = torch.tensor([3, 2])

    @pytest.mark.parametrize(
        ("kind", "n_directions", "want"),
        [
            (readout.LastState, 1, [[6.0, 60.0], [5.0, 50.0]]),
            (readout.LastState, 2, [[6.0, 10.0], [5.0, 30.0]]),
            (readout.Mean, 1, [[3.0, 30.0], [4.0, 40.0]]),
        ],
    )
    def test_by_hand(self, kind, n_directions, want):
        one, lens = kind(2, n_directions)(self.HIDDEN, self.LENS)
        assert one[:, 0].tolist() == want
        assert lens.tolist() == [1, 1]

    def test_attention_weighs_frames_by_their_score(self):
        pool = readout.AttentionPooling(2, 1, d_attention=1)
        pool.score[0].weight.data.copy_(torch.tensor([[0.1, 0.0]]))
        pool.score[2].weight.data.fill_(4.0)
        one, lens = pool(self.HIDDEN, self.LENS)
        for row, frames in zip(one[:, 0], ([1.0, 2.0, 6.0], [3.0, 5.0]), strict=True):
            x = torch.tensor(frames)
            weights = torch.softmax(4 * torch.tanh(0.1 * x), dim=0)
            torch.testing.assert_close(row, torch.stack([(weights * x).sum(), (weights * x * 10).sum()]))
        assert lens.tolist() == [1, 1]

    def test_frames_are_zero_in_the_padding(self):
        hidden, lens = readout.Frames(2, 1)(self.HIDDEN, self.LENS)
        assert hidden[1, 2].tolist() == [0.0, 0.0]
        assert torch.equal(lens, self.LENS)

    def test_an_utterance_without_frames_gives_numbers(self):
        for kind in (readout.LastState, readout.Mean):
            assert torch.isfinite(kind(2, 1)(self.HIDDEN[:1], torch.tensor([0]))[0]).all()


@pytest.mark.parametrize(
    ("choice", "link"),
    [(c, "projection") for c in choices("encoder/readout")] + [("frames", "plain"), ("frames", "residual")],
)
@pytest.mark.quick(2)
def test_every_choice_builds_and_garbage_changes_nothing(choice, link, tones):
    more = ["encoder=bilstm", f"encoder/readout={choice}", f"encoder/connection={link}", "encoder.n_layers=2"]
    more += ["encoder.connection.d_projection=8"] if link == "projection" else []
    model = call(resolved(composed(*tiny(tones, *more))), "encoder", in_dim=24).eval()
    x, mask = speech([20, 13], 24)
    dirty = x.masked_fill(~mask[:, :, None], float("nan"))
    hidden, lens = model(dirty, mask.sum(dim=1))
    torch.testing.assert_close(hidden, model(x * mask[:, :, None], mask.sum(dim=1))[0])
    assert torch.equal(lens, model.output_lengths(mask.sum(dim=1)))
    assert (choice == "frames") == (hidden.shape[1] > 1)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["encoder=rnn", "encoder.d_hidden=0"], "d_hidden and n_layers must be positive, 0 and 1 came"),
        (["encoder=rnn", "encoder.cell.nonlinearity=gelu"], "cell.nonlinearity is tanh or relu, 'gelu' came"),
        (["encoder=gru", "encoder.cell.recurrent_init=xavier"], "cell.recurrent_init is one of .*, 'xavier' came"),
        (["encoder=ligru", "encoder.cell.recurrent_init=zeros"], "orthogonal, identity, uniform, 'zeros' came"),
        (
            [
                "encoder=lstm",
                "encoder/connection=projection",
                "encoder.n_layers=2",
                "encoder.connection.d_projection=25",
            ],
            "connection.d_projection is 1 to 24, the width of a layer in all, 25 came",
        ),
        (
            ["encoder=lstm", "encoder/readout=attention", "encoder.readout.d_attention=0"],
            "d_attention must be positive",
        ),
        (["encoder=lstm", "encoder.dropout=1.0"], "dropout is a probability"),
    ],
)
def test_values_that_cannot_be(overrides, says, tones):
    with pytest.raises(ConfigError, match=f"conf/encoder: .*{says}"):
        call(resolved(composed(*tiny(tones, *overrides))), "encoder", in_dim=24)
