"""Mamba encoder: selective state spaces (Gu & Dao 2023), scanned by chunks as matrix products (Dao & Gu 2024)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.receptive_field import ReceptiveField
from asr_lab.layers.subsampling import to_width

CHUNK = 24  # frames of one matrix product of the scan; changes the speed, never the result
STEP_RANGE = (1e-3, 1e-1)  # of the first steps, log-uniform (Gu & Dao 2023, section 3.6)
DECAY_RANGE = (1.0, 16.0)  # of the first decays, uniform (Dao & Gu 2024, their code)


class MambaState(NamedTuple):
    """What a unidirectional layer remembers of earlier pieces."""

    inputs: Tensor  # (B, kernel_size-1, E) last inputs of the convolution
    hidden: Tensor  # (B, H, P, N)


class MambaEncoder(nn.Module):
    """Subsampling, then `n_layers` residual Mamba blocks, layer norm.

    `bidirectional` reads every utterance from both ends with projections in common (Zhu et al. 2024, Vision Mamba);
    otherwise no frame sees a later one, and the encoder streams if its subsampling does.
    """

    memory_growth = "linear"
    exports = False  # the loop over chunks would be unrolled for one length

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        expansion: int,
        n_heads: int,
        d_state: int,
        kernel_size: int,
        bidirectional: bool,
        dropout: float,
        subsampling: Callable[..., Any],
    ):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, {n_layers} came")
        if n_heads < 1 or (expansion * d_model) % n_heads:
            raise ValueError(f"n_heads={n_heads} does not divide expansion * d_model = {expansion * d_model}")
        if d_state < 1 or kernel_size < 1:
            raise ValueError(f"d_state={d_state} and kernel_size={kernel_size} came, both must be at least 1")
        self.out_dim, self.bidirectional = d_model, bidirectional
        self.subsampling = subsampling(in_dim=in_dim, out_dim=d_model)
        self.embed = to_width(self.subsampling, d_model)
        sizes = (expansion * d_model, n_heads, d_state, kernel_size)
        self.layers = nn.ModuleList(MambaBlock(d_model, sizes, bidirectional, dropout) for _ in range(n_layers))
        self.norm_out = nn.LayerNorm(d_model)
        self.stream_frames = self.subsampling.factor if self.subsampling.streams and not bidirectional else None

    @property
    def receptive_field(self) -> ReceptiveField:
        return self.subsampling.receptive_field.all(right=self.bidirectional)

    def output_lengths(self, lens: Tensor) -> Tensor:
        return self.subsampling.output_lengths(lens)

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, lens = self.subsampling(feats, lens)
        x = self.embed(x)
        mask = valid_frames(lens, x.shape[1])[:, :, None]  # (B, U, 1)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm_out(x).masked_fill(~mask, 0), lens

    def stream(self, feats: Tensor, state: tuple[Any, list[MambaState | None]] | None) -> tuple[Tensor, Any]:
        """(B, stream_frames, F), state (None: the beginning) -> (B,U,D), state"""
        before, states = state or (None, [None] * len(self.layers))
        x, before = self.subsampling.stream(feats, before)
        x, later = self.embed(x), []
        for layer, old in zip(self.layers, states, strict=True):
            assert isinstance(layer, MambaBlock)
            x, new = layer.stream(x, old)
            later.append(new)
        return self.norm_out(x), (before, later)


class MambaBlock(nn.Module):
    """x + W_out(y * SiLU(z)), where [u, z] = W_in LN(x) and y is u through a selective state space (figure 3)."""

    def __init__(self, d_model: int, sizes: tuple[int, int, int, int], bidirectional: bool, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.linear_in = nn.Linear(d_model, 2 * sizes[0], bias=False)
        self.forwards = SelectiveStateSpace(*sizes)
        self.backwards = SelectiveStateSpace(*sizes) if bidirectional else None
        self.linear_out = nn.Linear(sizes[0], d_model, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U,1) bool -> (B,U,D)"""
        u, z = self.linear_in(self.norm(x)).chunk(2, dim=-1)
        y, _ = self.forwards(u, mask, None)
        if self.backwards is not None:
            # Padding leaves the state at zero, so each utterance begins with its own last frame.
            back, _ = self.backwards(u.flip(1), mask.flip(1), None)
            y = y + back.flip(1)
        return x + self.dropout(self.linear_out(y * nn.functional.silu(z)))

    def stream(self, x: Tensor, state: MambaState | None) -> tuple[Tensor, MambaState]:
        u, z = self.linear_in(self.norm(x)).chunk(2, dim=-1)
        y, later = self.forwards(u, torch.ones_like(x[:, :, :1], dtype=torch.bool), state)
        return x + self.linear_out(y * nn.functional.silu(z)), later


class SelectiveStateSpace(nn.Module):
    """A causal depthwise convolution, SiLU, and states whose step, input and output depend on what they read.

    One decay for each head of `d_inner / n_heads` channels (Mamba-2) in place of one for each channel and state: that
    makes the scan a few matrix products. Convolution and projections are where Mamba has them.
    """

    def __init__(self, d_inner: int, n_heads: int, d_state: int, kernel_size: int):
        super().__init__()
        self.n_heads, self.d_state = n_heads, d_state
        self.conv = nn.Conv1d(d_inner, d_inner, kernel_size, groups=d_inner)
        self.select = nn.Linear(d_inner, 2 * d_state + n_heads, bias=False)
        low, high = (math.log(x) for x in STEP_RANGE)
        step = torch.empty(n_heads).uniform_(low, high).exp()
        self.step_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus gives `step`
        self.log_decay = nn.Parameter(torch.empty(n_heads).uniform_(*DECAY_RANGE).log())
        self.skip = nn.Parameter(torch.ones(n_heads))

    def forward(self, x: Tensor, mask: Tensor, state: MambaState | None) -> tuple[Tensor, MambaState]:
        """(B,U,E), (B,U,1) bool, state (None: the beginning) -> (B,U,E), state after the last frame"""
        x = x * mask
        n_before = self.conv.kernel_size[0] - 1
        before = x.new_zeros(x.shape[0], n_before, x.shape[2]) if state is None else state.inputs
        inputs = torch.cat([before, x], dim=1)
        x = nn.functional.silu(self.conv(inputs.transpose(1, 2)).transpose(1, 2)) * mask
        b, c, step = self.select(x).split([self.d_state, self.d_state, self.n_heads], dim=-1)
        step = nn.functional.softplus(step.float() + self.step_bias)
        heads = x.unflatten(-1, (self.n_heads, -1))  # (B, U, H, P)
        y, hidden = selective_scan(heads, step, -self.log_decay.exp(), b, c, state and state.hidden)
        y = y + self.skip[:, None] * heads
        return y.flatten(2), MambaState(inputs[:, inputs.shape[1] - n_before :], hidden)


def selective_scan(
    x: Tensor, step: Tensor, decay: Tensor, b: Tensor, c: Tensor, hidden: Tensor | None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(step_t decay) h_{t-1} + step_t x_t b_t^T and y_t = h_t c_t for every head, chunk by chunk.

    x (B,U,H,P), step (B,U,H) positive, decay (H,) negative, b and c (B,U,N), hidden (B,H,P,N) or None for zeros
    -> (B,U,H,P) and the last h. Within a chunk y = (exp(s_i - s_j) c_i.b_j)_{j <= i} step x with s the running sum of
    step * decay (Dao & Gu 2024, section 6): exponents are never positive, so nothing overflows. From chunk to chunk
    the states are handed on one after the other.
    """
    n_frames = x.shape[1]
    size = min(CHUNK, n_frames)
    missing = -n_frames % size
    # Frames with a step of zero leave the state as it is.
    x, step, b, c = (_chunks(t, size, missing) for t in (x, step, b, c))
    x = x * step[..., None]  # (B, K, Q, H, P)
    fall = (step * decay).cumsum(dim=2)  # (B, K, Q, H)
    per_head = fall.transpose(2, 3)
    later = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
    between = (per_head[..., :, None] - per_head[..., None, :]).masked_fill(later, -torch.inf).exp()  # (B, K, H, Q, Q)
    y = (between * (c @ b.transpose(-1, -2))[:, :, None]) @ x.transpose(2, 3)  # (B, K, H, Q, P)

    to_end = (fall[:, :, -1:] - fall).exp()
    added = (x * to_end[..., None]).flatten(3).transpose(-1, -2) @ b  # (B, K, H * P, N)
    added = added.unflatten(2, x.shape[3:])
    kept = fall[:, :, -1, :, None, None].exp()
    h = torch.zeros_like(added[:, 0]) if hidden is None else hidden
    before = []
    for k in range(x.shape[1]):
        before.append(h)
        h = kept[:, k] * h + added[:, k]
    from_before = c @ torch.stack(before, dim=1).flatten(2, 3).transpose(-1, -2)  # (B, K, Q, H * P)
    y = y.transpose(2, 3) + fall.exp()[..., None] * from_before.unflatten(-1, x.shape[3:])
    return y.flatten(1, 2)[:, :n_frames], h


def _chunks(x: Tensor, size: int, missing: int) -> Tensor:
    """(B, U, ...) -> (B, K, size, ...), zeros at the end."""
    return nn.functional.pad(x, (0, 0) * (x.dim() - 2) + (0, missing)).unflatten(1, (-1, size))
