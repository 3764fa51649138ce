"""Squeezeformer encoder (Kim et al. 2022, "Squeezeformer: an efficient transformer for ASR")."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.layers.depthwise import DepthwiseConv
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.positions import AbsolutePositions
from asr_lab.layers.receptive_field import ReceptiveField
from asr_lab.layers.resampling import repeat_frames
from asr_lab.layers.subsampling import to_width


class SqueezeformerEncoder(nn.Module):
    """Subsampling, then `n_layers` blocks, those in the middle at half the frame rate (temporal U-Net, section 3.1.1).

    The first 7/16 of the layers and the last one run at the full rate, as in the paper's models of 16 layers.
    The convolution modules are normed by layer, not by batch: batch statistics would let batch neighbours change an
    output in training.
    """

    memory_growth = "quadratic"
    exports = False  # odd and even lengths are halved alike only for a length that is known
    stream_frames = None

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        ff_expansion: int,
        kernel_size: int,
        reduction_kernel_size: int,
        dropout: float,
        subsampling: Callable[..., Any],
        attention: Callable[..., Any],
    ):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, {n_layers} came")
        self.out_dim = d_model
        self.subsampling = subsampling(in_dim=in_dim, out_dim=d_model)
        self.embed = to_width(self.subsampling, d_model)
        self.norm_in = nn.LayerNorm(d_model)
        attentions = [attention(d_model=d_model) for _ in range(n_layers)]
        self.layers = nn.ModuleList(
            SqueezeformerBlock(d_model, one, ff_expansion, kernel_size, dropout) for one in attentions
        )
        self.first_halved = 7 * n_layers // 16
        self.first_restored = max(self.first_halved + 1, n_layers - 1)
        self.halve = TimeHalving(d_model, reduction_kernel_size)
        self.restore = nn.Linear(d_model, d_model)
        self.positions = AbsolutePositions(d_model) if attentions[0].wants_absolute_positions else None

    @property
    def receptive_field(self) -> ReceptiveField:
        return self.subsampling.receptive_field.all()

    def output_lengths(self, lens: Tensor) -> Tensor:
        return self.subsampling.output_lengths(lens)

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, lens = self.subsampling(feats, lens)
        x = self.embed(x)
        if self.positions is not None:
            x = x + self.positions(x.shape[1], x)
        mask = valid_frames(lens, x.shape[1])  # (B, U)
        x = self._run(self.norm_in(x), mask, 0, self.first_halved)
        half, half_mask = self.halve(x, mask)
        half = self._run(half, half_mask, self.first_halved, self.first_restored)
        x = x + repeat_frames(self.restore(half), 2, x.shape[1])
        x = self._run(x, mask, self.first_restored, len(self.layers))
        return x.masked_fill(~mask[:, :, None], 0), lens

    def _run(self, x: Tensor, mask: Tensor, first: int, end: int) -> Tensor:
        for layer in self.layers[first:end]:
            x = layer(x, mask)
        return x


class TimeHalving(nn.Module):
    """Every second frame, by a depthwise convolution with a stride of 2 and a pointwise one."""

    def __init__(self, d_model: int, kernel_size: int):
        super().__init__()
        self.depthwise = DepthwiseConv(d_model, kernel_size, stride=2)
        self.pointwise = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B,U,D), (B,U) bool -> (B,ceil(U/2),D), (B,ceil(U/2)) bool"""
        return self.pointwise(self.depthwise(x, mask)), mask[:, ::2]


class SqueezeformerBlock(nn.Module):
    """Attention, feed-forward, convolution, feed-forward, each as LN(x + module(scale * x + bias)) (section 3.1.2)."""

    def __init__(self, d_model: int, attention: Any, ff_expansion: int, kernel_size: int, dropout: float):
        super().__init__()
        self.attention = attention
        self.feed_forward_mid = _feed_forward(d_model, ff_expansion, dropout)
        self.convolution = ConvolutionModule(d_model, kernel_size)
        self.feed_forward_out = _feed_forward(d_model, ff_expansion, dropout)
        self.scales = nn.ModuleList(LearnedScale(d_model) for _ in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(4))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool: valid -> (B,U,D)"""
        seen = mask[:, None]
        x = self.norms[0](x + self.dropout(self.attention(self.scales[0](x), seen)))
        x = self.norms[1](x + self.dropout(self.feed_forward_mid(self.scales[1](x))))
        x = self.norms[2](x + self.dropout(self.convolution(self.scales[2](x), mask)))
        return self.norms[3](x + self.dropout(self.feed_forward_out(self.scales[3](x))))


class LearnedScale(nn.Module):
    """scale * x + bias for each channel: what a norm in front of a module would have learnt, without the norm."""

    def __init__(self, d_model: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, x, self.scale)


class ConvolutionModule(nn.Module):
    """Pointwise, Swish (the Conformer: GLU), depthwise convolution, norm, Swish, pointwise (section 3.1.2)."""

    def __init__(self, d_model: int, kernel_size: int):
        super().__init__()
        self.pointwise_in = nn.Linear(d_model, 2 * d_model)
        self.depthwise = DepthwiseConv(2 * d_model, kernel_size, stride=1)
        self.norm = nn.LayerNorm(2 * d_model)
        self.pointwise_out = nn.Linear(2 * d_model, d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        x = nn.functional.silu(self.pointwise_in(x))
        return self.pointwise_out(nn.functional.silu(self.norm(self.depthwise(x, mask))))


def _feed_forward(d_model: int, expansion: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(d_model, expansion * d_model),
        nn.SiLU(),
        Dropout(dropout),
        nn.Linear(expansion * d_model, d_model),
    )
