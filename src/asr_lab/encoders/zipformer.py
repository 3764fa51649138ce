"""Zipformer encoder (Yao et al. 2023, "Zipformer: a faster and better encoder for automatic speech recognition")."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.layers.depthwise import DepthwiseConv
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.positions import RelativePositions
from asr_lab.layers.receptive_field import ReceptiveField
from asr_lab.layers.resampling import LearnedDownsample, repeat_frames
from asr_lab.layers.self_attention import relative_shift
from asr_lab.layers.subsampling import to_width
from asr_lab.layers.swoosh import SwooshL, SwooshR

OUT_FACTOR = 2  # from the rate of the first stack to that of the output (figure 1 of the paper)


class ZipformerEncoder(nn.Module):
    """Subsampling, then one stack of `n_layers` layers for each of `factors`, then half the frame rate.

    A stack with factor f works at an f-th of the rate behind the subsampling. `d_head` are the widths of a head's
    queries (and keys), positions and values. All stacks have one width and one kernel, and positions are sinusoids of
    the distance (the paper: its own compact functions). Left out are the paper's aids of training: the ScaledAdam
    optimizer, the Balancer and the Whitener, scheduled dropout and bounds of the bypass scales.
    """

    memory_growth = "quadratic"
    exports = False  # lengths are divided by each factor and rounded, which binds the export to one of them
    stream_frames = None

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        factors: list[int],
        n_heads: int,
        d_head: list[int],
        ff_expansion: int,
        kernel_size: int,
        dropout: float,
        subsampling: Callable[..., Any],
    ):
        super().__init__()
        if not factors or any(f < 1 or f & (f - 1) for f in factors):
            raise ValueError(f"factors wants powers of 2 (1, 2, 4, ...), one for each stack, {factors} came")
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, {n_layers} came")
        if n_heads < 1 or len(d_head) != 3 or min(d_head) < 1:
            raise ValueError(
                f"d_head wants 3 positive widths (query, position, value) and n_heads at least 1, "
                f"d_head={d_head} and n_heads={n_heads} came"
            )
        self.out_dim = d_model
        self.subsampling = subsampling(in_dim=in_dim, out_dim=d_model)
        self.embed = to_width(self.subsampling, d_model)
        self.norm_in = BiasNorm(d_model)
        sizes = (d_model, n_heads, d_head, ff_expansion, kernel_size, dropout)
        self.stacks = nn.ModuleList(
            ZipformerStack(d_model, factor, [ZipformerLayer(*sizes) for _ in range(n_layers)]) for factor in factors
        )
        self.downsample = LearnedDownsample(OUT_FACTOR)

    @property
    def receptive_field(self) -> ReceptiveField:
        return self.subsampling.receptive_field.then(0, OUT_FACTOR - 1, OUT_FACTOR).all()

    def output_lengths(self, lens: Tensor) -> Tensor:
        return (self.subsampling.output_lengths(lens) + OUT_FACTOR - 1) // OUT_FACTOR

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, n_valid = self.subsampling(feats, lens)
        x = self.norm_in(self.embed(x))
        mask = valid_frames(n_valid, x.shape[1])
        for stack in self.stacks:
            x = stack(x, mask)
        x, mask = self.downsample(x, mask)
        return x.masked_fill(~mask[:, :, None], 0), self.output_lengths(lens)


class ZipformerStack(nn.Module):
    """Layers at an f-th of the frame rate, and a learned way around them."""

    def __init__(self, d_model: int, factor: int, layers: list[nn.Module]):
        super().__init__()
        self.factor = factor
        self.layers = nn.ModuleList(layers)
        self.downsample = LearnedDownsample(factor) if factor > 1 else None
        self.bypass = Bypass(d_model) if factor > 1 else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        y = x
        if self.downsample is not None:
            y, mask = self.downsample(x, mask)
        for layer in self.layers:
            y = layer(y, mask)
        return y if self.bypass is None else self.bypass(x, repeat_frames(y, self.factor, x.shape[1]))


class ZipformerLayer(nn.Module):
    """Figure 2 of the paper: attention weights are computed once and used by three modules."""

    def __init__(
        self, d_model: int, n_heads: int, d_head: list[int], ff_expansion: int, kernel_size: int, dropout: float
    ):
        super().__init__()
        d_query, d_position, d_value = d_head
        d_hidden = ff_expansion * d_model
        self.attention_weights = AttentionWeights(d_model, n_heads, d_query, d_position, dropout)
        self.feed_forwards = nn.ModuleList(
            FeedForward(d_model, width, dropout) for width in (3 * d_hidden // 4, d_hidden, 5 * d_hidden // 4)
        )
        self.nonlinear_attention = NonlinearAttention(d_model)
        self.attentions = nn.ModuleList(ValueAttention(d_model, n_heads, d_value) for _ in range(2))
        self.convolutions = nn.ModuleList(ConvolutionModule(d_model, kernel_size, dropout) for _ in range(2))
        self.bypasses = nn.ModuleList(Bypass(d_model) for _ in range(2))
        self.norm = BiasNorm(d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        weights = self.attention_weights(x, mask)  # (B, H, U, U)
        y = x + self.feed_forwards[0](x)
        y = y + self.nonlinear_attention(y, weights[:, 0])
        y = y + self.attentions[0](y, weights)
        y = y + self.convolutions[0](y, mask)
        y = y + self.feed_forwards[1](y)
        y = self.bypasses[0](x, y)
        y = y + self.attentions[1](y, weights)
        y = y + self.convolutions[1](y, mask)
        y = y + self.feed_forwards[2](y)
        return self.bypasses[1](x, self.norm(y))


class AttentionWeights(nn.Module):
    """softmax over the valid keys of q_i . k_j + p_i . r_{i-j}, r a projection of the distance's sinusoids."""

    def __init__(self, d_model: int, n_heads: int, d_query: int, d_position: int, dropout: float):
        super().__init__()
        self.widths = [d_query, d_query, d_position]
        self.n_heads = n_heads
        # Scores are not divided by sqrt(d_query): the first weights are smaller instead.
        self.linear_in = _scaled(nn.Linear(d_model, n_heads * sum(self.widths)), d_query**-0.25)
        self.positions = RelativePositions(d_model)
        self.linear_pos = _scaled(nn.Linear(d_model, n_heads * d_position, bias=False), 0.05)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool -> (B,H,U,U)"""
        n_frames = x.shape[1]
        q, k, p = self.linear_in(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2).split(self.widths, dim=-1)
        r = self.linear_pos(self.positions(n_frames, n_frames, x))  # (2U-1, H * d_position)
        r = r.unflatten(-1, (self.n_heads, -1)).permute(1, 2, 0)  # (H, d_position, 2U-1)
        scores = q @ k.transpose(-1, -2) + relative_shift(p @ r, n_frames)
        scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
        return self.dropout(scores.softmax(dim=-1))


class ValueAttention(nn.Module):
    """Attention whose weights are given."""

    def __init__(self, d_model: int, n_heads: int, d_value: int):
        super().__init__()
        self.n_heads = n_heads
        self.linear_v = nn.Linear(d_model, n_heads * d_value)
        self.linear_out = _scaled(nn.Linear(n_heads * d_value, d_model), 0.05)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(B,U,D), (B,H,U,U) -> (B,U,D)"""
        v = self.linear_v(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        return self.linear_out((weights @ v).transpose(1, 2).flatten(2))


class NonlinearAttention(nn.Module):
    """W (c * attention(tanh(a) * b)), where [a, b, c] = W' x have 3/4 of the width; one head's weights (figure 3)."""

    def __init__(self, d_model: int):
        super().__init__()
        d_hidden = 3 * d_model // 4
        self.linear_in = nn.Linear(d_model, 3 * d_hidden)
        self.linear_out = _scaled(nn.Linear(d_hidden, d_model), 0.05)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(B,U,D), (B,U,U) -> (B,U,D)"""
        a, b, c = self.linear_in(x).chunk(3, dim=-1)
        return self.linear_out(c * (weights @ (a.tanh() * b)))


class FeedForward(nn.Sequential):
    """Linear, SwooshL, linear: D -> d_hidden -> D."""

    def __init__(self, d_model: int, d_hidden: int, dropout: float):
        linear_out = _scaled(nn.Linear(d_hidden, d_model), 0.1)
        super().__init__(nn.Linear(d_model, d_hidden), SwooshL(), Dropout(dropout), linear_out)


class ConvolutionModule(nn.Module):
    """Pointwise GLU, depthwise convolution, SwooshR, pointwise: the Conformer's without its norms."""

    def __init__(self, d_model: int, kernel_size: int, dropout: float):
        super().__init__()
        self.pointwise_in = nn.Linear(d_model, 2 * d_model)
        self.depthwise = DepthwiseConv(d_model, kernel_size, stride=1)
        self.swoosh = SwooshR()
        self.dropout = Dropout(dropout)
        self.pointwise_out = _scaled(nn.Linear(d_model, d_model), 0.05)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        x = self.depthwise(nn.functional.glu(self.pointwise_in(x), dim=-1), mask)
        return self.pointwise_out(self.dropout(self.swoosh(x)))


class Bypass(nn.Module):
    """(1 - c) * before + c * after with a learned c for each channel, 1/2 at first."""

    def __init__(self, d_model: int):
        super().__init__()
        self.scale = nn.Parameter(torch.full((d_model,), 0.5))

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return before + (after - before) * self.scale


class BiasNorm(nn.Module):
    """x / RMS(x - b) * exp(gamma): b lets a channel say how large the others are (section 3.3)."""

    def __init__(self, d_model: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        # The small number is for frames of padding, which may be all zeros.
        scale = (x - self.bias).square().mean(dim=-1, keepdim=True).add(1e-8).rsqrt()
        return x * (scale * self.log_scale.exp())


def _scaled(linear: nn.Linear, scale: float) -> nn.Linear:
    """The layer with its first weights made smaller: without norms in front, a branch must begin small."""
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.mul_(scale)
    return linear
