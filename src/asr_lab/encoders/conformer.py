"""Conformer encoder (Gulati et al. 2020) with relative positions as in Transformer-XL (Dai et al. 2019)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from asr_lab.layers.context import Context
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import attention_mask, valid_frames
from asr_lab.layers.receptive_field import ReceptiveField
from asr_lab.layers.subsampling import to_width


class ConformerEncoder(nn.Module):
    """Subsampling, then `n_layers` Conformer blocks of width `d_model`."""

    memory_growth = "quadratic"
    exports = True
    stream_frames = None

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        ff_expansion: int,
        kernel_size: int,
        causal: bool,
        dropout: float,
        subsampling: Callable[..., Any],
        attention: Callable[..., Any],
        context: Context,
    ):
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd (the window is centred), {kernel_size} came")
        self.out_dim = d_model
        self.subsampling = subsampling(in_dim=in_dim, out_dim=d_model)
        self.embed = to_width(self.subsampling, d_model)
        self.context = context
        self.layers = nn.ModuleList(
            ConformerBlock(d_model, attention(d_model=d_model), ff_expansion, kernel_size, dropout)
            for _ in range(n_layers)
        )

    @property
    def receptive_field(self) -> ReceptiveField:
        return self.subsampling.receptive_field.all()

    def output_lengths(self, lens: Tensor) -> Tensor:
        return self.subsampling.output_lengths(lens)

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, lens = self.subsampling(feats, lens)
        x = self.embed(x)
        mask = valid_frames(lens, x.shape[1])  # (B, U)
        seen = attention_mask(mask, self.context.mask(x.shape[1], x.device))
        for layer in self.layers:
            x = layer(x, mask, seen)
        return x.masked_fill(~mask[:, :, None], 0), lens


class ConformerBlock(nn.Module):
    """x + FF/2, + attention, + convolution, + FF/2, layer norm: the macaron of Gulati et al. 2020, equation 1."""

    def __init__(self, d_model: int, self_attn: Any, ff_expansion: int, kernel_size: int, dropout: float):
        super().__init__()
        self.feed_forward_in = _feed_forward(d_model, ff_expansion, dropout)
        self.norm_attention = nn.LayerNorm(d_model)
        self.self_attn = self_attn
        self.convolution = ConvolutionModule(d_model, kernel_size)
        self.feed_forward_out = _feed_forward(d_model, ff_expansion, dropout)
        self.norm_out = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool: valid, (B,U|1,U) bool: may be looked at -> (B,U,D)"""
        x = x + 0.5 * self.feed_forward_in(x)
        x = x + self.dropout(self.self_attn(self.norm_attention(x), seen))
        x = x + self.dropout(self.convolution(x, mask))
        x = x + 0.5 * self.feed_forward_out(x)
        return self.norm_out(x)


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


def _feed_forward(d_model: int, expansion: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(d_model),
        nn.Linear(d_model, expansion * d_model),
        nn.SiLU(),
        Dropout(dropout),
        nn.Linear(expansion * d_model, d_model),
        Dropout(dropout),
    )
