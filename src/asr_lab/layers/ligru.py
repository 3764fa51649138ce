"""Light gated recurrent unit (Ravanelli et al. 2018, "Light gated recurrent units for speech recognition")."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from asr_lab.layers.norms import MaskedBatchNorm
from asr_lab.layers.recurrence import Recurrence, State, init_recurrent


class LiGru(Recurrence):
    """A GRU with no reset gate, ReLU for tanh, and batch norm on what comes from the input:

        z = sigmoid(BN(W_z x) + U_z h),  c = relu(BN(W_c x) + U_c h),  h' = z * h + (1 - z) * c

    The batch norm counts valid frames only. Frames follow one another in float32 whatever the autocast.
    """

    n_gates = 2

    def __init__(self, in_dim: int, d_hidden: int, recurrent_init: str):
        super().__init__(d_hidden)
        self.input = nn.Linear(in_dim, 2 * d_hidden, bias=False)  # the norm has one
        self.norm = MaskedBatchNorm(2 * d_hidden)
        self.weight_hh = nn.Parameter(torch.empty(2 * d_hidden, d_hidden))
        init_recurrent(self.weight_hh, recurrent_init)

    def project(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.norm(self.input(x), mask)

    def step(self, gates: Tensor, state: State) -> State:
        z, c = (gates + linear(state[0], self.weight_hh)).chunk(2, dim=-1)
        return (torch.lerp(c.relu(), state[0], z.sigmoid()),)

    def run(self, x: Tensor, mask: Tensor, state: State) -> tuple[Tensor, State]:
        gates = self.project(x, mask).float().transpose(0, 1).contiguous()  # (U, B, 2D): a frame lies in one piece
        with torch.autocast(x.device.type, enabled=False):
            hidden = _Frames.apply(gates, self.weight_hh, state[0].float())
        return hidden.transpose(0, 1), (hidden[-1],)


class _Frames(torch.autograd.Function):
    """(U,B,2D), (2D,D), (B,D) -> (U,B,D). Four operations a frame forward and three backward.

    dL/dh of a frame enters the gradients of its gates by factors that do not depend on it; those of all frames are
    computed at once, and the loop backwards is left with what really follows from frame to frame.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, h0: Tensor) -> Tensor:
        n_frames, n_batch, width = x.shape
        gates, states = torch.empty_like(x), x.new_empty(n_frames + 1, n_batch, width // 2)
        states[0] = h0
        z, c = gates.chunk(2, dim=-1)
        h = states.unbind()
        frames = zip(x.unbind(), gates.unbind(), z.unbind(), c.unbind(), h, h[1:], strict=False)
        for x_u, gates_u, z_u, c_u, before, after in frames:
            torch.addmm(x_u, before, weight.t(), out=gates_u)
            z_u.sigmoid_()
            c_u.relu_()
            torch.lerp(c_u, before, z_u, out=after)
        ctx.save_for_backward(gates, states, weight)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates, states, weight = ctx.saved_tensors
        z, c = gates.chunk(2, dim=-1)
        before = states[:-1]
        factors = torch.stack([(before - c) * (z - z * z), (1 - z) * (c > 0)], dim=2)  # (U, B, 2, D)
        d_states = torch.cat([torch.zeros_like(before[:1]), grad])
        d_gates = torch.empty_like(factors)
        flat = d_gates.flatten(2)  # (U, B, 2D)
        d_h = d_states.unbind()
        frames = zip(d_h, d_h[1:], factors.unbind(), d_gates.unbind(), flat.unbind(), z.unbind(), strict=False)
        for d_before, d_after, factor, d_gate, d_flat, keep in reversed(list(frames)):
            torch.mul(d_after[:, None], factor, out=d_gate)
            d_before.addcmul_(d_after, keep).addmm_(d_flat, weight)
        return flat, flat.flatten(0, 1).t() @ before.flatten(0, 1), d_states[0]
