"""Recurrent cells, each run over all frames of a batch in one direction: vanilla RNN, LSTM, GRU (LiGRU: ligru.py)."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

State = tuple[Tensor, ...]  # each (B, d_hidden): what a cell hands from a frame to the next, the output first

INITS = ("orthogonal", "identity", "uniform")


class Recurrence(nn.Module):
    """A cell in three forms: its equations (`project`, `step`), and `run`, the same over all frames and fast.

    The equations serve where speed does not count: torch.export gets them in a scan, so that an exported encoder takes
    any length, and the meta device gets them with all frames at once: as many products, and as much kept for the
    backward pass, without a loop over time.
    """

    n_gates: int
    n_states: int = 1

    def __init__(self, d_hidden: int):
        super().__init__()
        self.out_dim = d_hidden

    def project(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D_in), (B,U) bool: valid -> (B,U,n_gates*d_hidden), the part of the gates that no state enters.

        B and U may change places.
        """
        raise NotImplementedError

    def step(self, gates: Tensor, state: State) -> State:
        """(..., n_gates*d_hidden) of `project`, (..., d_hidden) each -> the next state: the published equations."""
        raise NotImplementedError

    def run(self, x: Tensor, mask: Tensor, state: State) -> tuple[Tensor, State]:
        """(B,U,D_in), (B,U), (B,d_hidden) each -> (B,U,d_hidden), (B,d_hidden) each after the last frame"""
        raise NotImplementedError

    def forward(self, x: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(B,U,D_in), (B,U) bool: valid, state (None: zeros) -> (B,U,d_hidden), the state after the last frame

        A frame depends on no later one, so that padding behind the valid frames changes none of them.
        """
        if state is None:
            state = tuple(x.new_zeros(x.shape[0], self.out_dim) for _ in range(self.n_states))
        if x.is_meta:
            states = self.step(self.project(x, mask), tuple(s[:, None].expand(-1, x.shape[1], -1) for s in state))
            return states[0], tuple(s[:, -1] for s in states)
        if torch.compiler.is_exporting():
            return self._scan(self.project(x.transpose(0, 1), mask.t()), state)
        return self.run(x, mask, state)

    def _scan(self, gates: Tensor, state: State) -> tuple[Tensor, State]:
        """(U,B,n_gates*d_hidden), (B,d_hidden) each -> (B,U,d_hidden), (B,d_hidden) each"""
        from torch._higher_order_ops.scan import scan

        def body(before: State, gates: Tensor) -> tuple[State, Tensor]:
            after = self.step(gates, before)
            return after, after[0].clone()

        last, hidden = scan(body, state, gates)
        return cast(Tensor, hidden).transpose(0, 1), cast(State, last)


class FusedCell(Recurrence):
    """A cell that PyTorch has a kernel for (oneDNN or its own on CPU, cuDNN on a GPU).

    The sequences are not packed: on CPU packed ones take none of the fast kernels. Biases begin at zero.
    """

    def __init__(self, kernel: nn.RNNBase, recurrent_init: str):
        super().__init__(kernel.hidden_size)
        self.kernel = kernel
        init_recurrent(self.weights[1], recurrent_init)
        for bias in self.weights[2:]:
            nn.init.zeros_(bias)

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Input and recurrent weights, (n_gates*d_hidden, D_in) and (n_gates*d_hidden, d_hidden), and their biases."""
        k = self.kernel
        return k.weight_ih_l0, k.weight_hh_l0, k.bias_ih_l0, k.bias_hh_l0  # pyright: ignore[reportReturnType]

    def project(self, x: Tensor, mask: Tensor) -> Tensor:
        return linear(x, self.weights[0], self.weights[2])

    def recur(self, h: Tensor) -> Tensor:
        """(..., d_hidden) -> (..., n_gates*d_hidden), the part of the gates that the previous output enters"""
        return linear(h, self.weights[1], self.weights[3])

    def run(self, x: Tensor, mask: Tensor, state: State) -> tuple[Tensor, State]:
        if x.device.type == "cpu" and torch.get_autocast_dtype("cpu") == torch.float16:
            # oneDNN has no float16 LSTM; bfloat16 it has.
            with torch.autocast("cpu", enabled=False):
                return self._kernel(x.float(), state)
        return self._kernel(x, state)

    def _kernel(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        before = [s.to(x.dtype)[None] for s in state]
        hidden, after = self.kernel(x, before[0] if self.n_states == 1 else tuple(before))
        return hidden, tuple(s[0] for s in ((after,) if self.n_states == 1 else after))


class VanillaRnn(FusedCell):
    """h' = f(W x + b + U h + c) (Elman 1990), f the hyperbolic tangent or ReLU.

    ReLU wants a recurrent matrix that neither grows nor shrinks a state at first: orthogonal, or the identity of Le et
    al. 2015 ("A simple way to initialize recurrent networks of rectified linear units").
    """

    n_gates = 1

    def __init__(self, in_dim: int, d_hidden: int, nonlinearity: str, recurrent_init: str):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"cell.nonlinearity is tanh or relu, {nonlinearity!r} came")
        super().__init__(nn.RNN(in_dim, d_hidden, nonlinearity=nonlinearity, batch_first=True), recurrent_init)
        self.f = torch.tanh if nonlinearity == "tanh" else torch.relu

    def step(self, gates: Tensor, state: State) -> State:
        return (self.f(gates + self.recur(state[0])),)


class Lstm(FusedCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates (Gers et al. 2000).

    `forget_bias` is what the bias of the forget gates begins with; above zero they start open (Jozefowicz et al. 2015).
    """

    n_gates, n_states = 4, 2

    def __init__(self, in_dim: int, d_hidden: int, recurrent_init: str, forget_bias: float):
        super().__init__(nn.LSTM(in_dim, d_hidden, batch_first=True), recurrent_init)
        nn.init.constant_(self.weights[2].chunk(4)[1], forget_bias)

    def step(self, gates: Tensor, state: State) -> State:
        i, f, g, o = (gates + self.recur(state[0])).chunk(4, dim=-1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Gru(FusedCell):
    """Gated recurrent unit (Cho et al. 2014), the reset gate behind the recurrent product as in cuDNN."""

    n_gates = 3

    def __init__(self, in_dim: int, d_hidden: int, recurrent_init: str):
        super().__init__(nn.GRU(in_dim, d_hidden, batch_first=True), recurrent_init)

    def step(self, gates: Tensor, state: State) -> State:
        (r, z, n), (r_h, z_h, n_h) = gates.chunk(3, dim=-1), self.recur(state[0]).chunk(3, dim=-1)
        n = torch.tanh(n + (r + r_h).sigmoid() * n_h)
        return (torch.lerp(n, state[0], (z + z_h).sigmoid()),)


def init_recurrent(weight: Tensor, how: str) -> None:
    """(n_gates*d_hidden, d_hidden), in place: orthogonal columns; an identity for each gate; or uniform within
    1 / sqrt(d_hidden), which is PyTorch's own."""
    d_hidden = weight.shape[1]
    if how == "orthogonal":
        nn.init.orthogonal_(weight)
    elif how == "identity":
        for gate in weight.split(d_hidden):
            nn.init.eye_(gate)
    elif how == "uniform":
        nn.init.uniform_(weight, -(d_hidden**-0.5), d_hidden**-0.5)
    else:
        raise ValueError(f"cell.recurrent_init is one of {', '.join(INITS)}, {how!r} came")
