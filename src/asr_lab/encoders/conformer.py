"""Conformer encoder (Gulati et al. 2020) with relative positions as in Transformer-XL (Dai et al. 2019)."""

import math

import torch
from torch import Tensor, nn

from asr_lab.encoders.subsampling import DepthwiseSubsampling4
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import valid_frames


class ConformerEncoder(nn.Module):
    """Subsampling by 4, then `n_layers` Conformer blocks of width `d_model`."""

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        ff_expansion: int,
        kernel_size: int,
        subsampling_channels: int,
        dropout: float,
    ):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"n_heads={n_heads} does not divide d_model={d_model}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd (the window is centred), {kernel_size} came")
        self.out_dim = d_model
        self.subsampling = DepthwiseSubsampling4(in_dim, d_model, subsampling_channels, dropout)
        self.positions = RelativePositions(d_model)
        self.dropout = Dropout(dropout)
        self.layers = nn.ModuleList(
            ConformerBlock(d_model, n_heads, ff_expansion, kernel_size, dropout) for _ in range(n_layers)
        )

    def output_lengths(self, lens: Tensor) -> Tensor:
        return self.subsampling.output_lengths(lens)

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, lens = self.subsampling(feats, lens)
        mask = valid_frames(lens, x.shape[1])  # (B, U)
        positions = self.positions(x.shape[1], x)  # (2U-1, D)
        for layer in self.layers:
            x = layer(x, positions, mask)
        return x * mask[:, :, None], lens


class ConformerBlock(nn.Module):
    """x + FF/2, + attention, + convolution, + FF/2, layer norm: the macaron of Gulati et al. 2020, equation 1."""

    def __init__(self, d_model: int, n_heads: int, ff_expansion: int, kernel_size: int, dropout: float):
        super().__init__()
        self.feed_forward_in = _feed_forward(d_model, ff_expansion, dropout)
        self.norm_attention = nn.LayerNorm(d_model)
        self.self_attn = RelPositionMultiHeadedAttention(d_model, n_heads, dropout)
        self.convolution = ConvolutionModule(d_model, kernel_size)
        self.feed_forward_out = _feed_forward(d_model, ff_expansion, dropout)
        self.norm_out = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (2U-1,D), (B,U) bool -> (B,U,D)"""
        x = x + 0.5 * self.feed_forward_in(x)
        x = x + self.dropout(self.self_attn(self.norm_attention(x), positions, mask))
        x = x + self.dropout(self.convolution(x, mask))
        x = x + 0.5 * self.feed_forward_out(x)
        return self.norm_out(x)


class RelPositionMultiHeadedAttention(nn.Module):
    """Multi-head self-attention whose scores know the distance between query and key (Dai et al. 2019, section 3.3).

    score(i, j) = ((q_i + pos_bias_u) . k_j + (q_i + pos_bias_v) . p_{i-j}) / sqrt(d_head)
    """

    def __init__(self, d_model: int, n_heads: int, dropout: float):
        super().__init__()
        self.n_heads, self.d_head = n_heads, d_model // n_heads
        self.linear_q = nn.Linear(d_model, d_model)
        self.linear_k = nn.Linear(d_model, d_model)
        self.linear_v = nn.Linear(d_model, d_model)
        self.linear_pos = nn.Linear(d_model, d_model, bias=False)
        self.linear_out = nn.Linear(d_model, d_model)
        self.pos_bias_u = nn.Parameter(torch.zeros(n_heads, self.d_head))
        self.pos_bias_v = nn.Parameter(torch.zeros(n_heads, self.d_head))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (2U-1,D), (B,U) bool -> (B,U,D)"""
        q = self.linear_q(x).unflatten(-1, (self.n_heads, self.d_head))  # (B, U, H, D/H)
        k = self.linear_k(x).unflatten(-1, (self.n_heads, self.d_head)).transpose(1, 2)  # (B, H, U, D/H)
        v = self.linear_v(x).unflatten(-1, (self.n_heads, self.d_head)).transpose(1, 2)
        p = self.linear_pos(positions).unflatten(-1, (self.n_heads, self.d_head)).transpose(0, 1)  # (H, 2U-1, D/H)
        scale = 1 / math.sqrt(self.d_head)
        content = ((q + self.pos_bias_u) * scale).transpose(1, 2) @ k.transpose(-1, -2)  # (B, H, U, U)
        position = ((q + self.pos_bias_v) * scale).transpose(1, 2) @ p.transpose(-1, -2)  # (B, H, U, 2U-1)
        scores = content + relative_shift(position)
        scores = scores.masked_fill(~mask[:, None, None, :], torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=-1))
        return self.linear_out((weights @ v).transpose(1, 2).flatten(2))


class ConvolutionModule(nn.Module):
    """Layer norm, pointwise GLU, depthwise convolution, norm, SiLU, pointwise: local patterns (Gulati et al. 2020).

    The inner norm is a layer norm: batch statistics would let padding and batch neighbours change an output.
    """

    def __init__(self, d_model: int, kernel_size: int):
        super().__init__()
        self.norm_in = nn.LayerNorm(d_model)
        self.pointwise_in = nn.Linear(d_model, 2 * d_model)
        self.depthwise = nn.Conv1d(d_model, d_model, kernel_size, padding=kernel_size // 2, groups=d_model)
        self.norm = nn.LayerNorm(d_model)
        self.pointwise_out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        x = nn.functional.glu(self.pointwise_in(self.norm_in(x)), dim=-1) * mask[:, :, None]
        x = self.depthwise(x.transpose(1, 2)).transpose(1, 2)  # (B, U, D) -> (B, D, U) -> (B, U, D)
        return self.pointwise_out(nn.functional.silu(self.norm(x)))


class RelativePositions(nn.Module):
    """Sinusoids (Vaswani et al. 2017) for the distances U-1 .. -(U-1): (2U-1, D), kept and grown as needed."""

    def __init__(self, d_model: int):
        super().__init__()
        self.d_model = d_model
        self.register_buffer("table", torch.empty(0, d_model), persistent=False)
        self.table: Tensor

    def forward(self, n_frames: int, like: Tensor) -> Tensor:
        """Number of encoder frames U, a tensor whose device and dtype are wanted -> (2U-1, D)"""
        if self.table.shape[0] < 2 * n_frames - 1:
            distance = torch.arange(n_frames - 1, -n_frames, -1, dtype=torch.float32)
            rate = torch.exp(torch.arange(0, self.d_model, 2) * (-math.log(10_000.0) / self.d_model))
            angle = distance[:, None] * rate
            self.table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, : self.d_model].to(like.device)
        middle = self.table.shape[0] // 2
        return self.table[middle - n_frames + 1 : middle + n_frames].to(like.dtype)


def relative_shift(x: Tensor) -> Tensor:
    """(B, H, U, 2U-1) scores by distance (first column: distance U-1) -> (B, H, U, U) scores by key.

    A view: row i of the result starts one column earlier than row i-1 (Dai et al. 2019, appendix B, without the copy).
    """
    batch, heads, n_frames, width = x.shape
    x = x.contiguous()
    strides = (x.stride(0), x.stride(1), width - 1, 1)
    return x.as_strided((batch, heads, n_frames, n_frames), strides, x.storage_offset() + n_frames - 1)


def _feed_forward(d_model: int, expansion: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(d_model),
        nn.Linear(d_model, expansion * d_model),
        nn.SiLU(),
        Dropout(dropout),
        nn.Linear(expansion * d_model, d_model),
        Dropout(dropout),
    )
