"""E-Branchformer encoder (Kim et al. 2022, "E-Branchformer: Branchformer with enhanced merging...")."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asr_lab.layers.context import Context
from asr_lab.layers.depthwise import DepthwiseConv
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import attention_mask, valid_frames
from asr_lab.layers.positions import AbsolutePositions
from asr_lab.layers.receptive_field import ReceptiveField
from asr_lab.layers.subsampling import to_width


class EBranchformerEncoder(nn.Module):
    """Subsampling, then `n_layers` blocks with a global and a local branch side by side.

    The convolutions are centred, so no configuration streams; `context` limits the global branch alone.
    """

    memory_growth = "quadratic"
    exports = True
    stream_frames = None

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        ff_expansion: int,
        gating_expansion: int,
        kernel_size: int,
        dropout: float,
        subsampling: Callable[..., Any],
        attention: Callable[..., Any],
        context: Context,
    ):
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, {n_layers} came")
        self.out_dim = d_model
        self.subsampling = subsampling(in_dim=in_dim, out_dim=d_model)
        self.embed = to_width(self.subsampling, d_model)
        self.context, self.kernel_size = context, kernel_size
        attentions = [attention(d_model=d_model) for _ in range(n_layers)]
        self.layers = nn.ModuleList(
            EBranchformerBlock(d_model, one, ff_expansion, gating_expansion, kernel_size, dropout) for one in attentions
        )
        self.positions = AbsolutePositions(d_model) if attentions[0].wants_absolute_positions else None

    @property
    def receptive_field(self) -> ReceptiveField:
        """An upper bound where `context` limits the global branch."""
        field = self.subsampling.receptive_field
        for _ in self.layers:
            field = field.then(*self.context.reach(1)).conv(self.kernel_size)
        return field

    def output_lengths(self, lens: Tensor) -> Tensor:
        return self.subsampling.output_lengths(lens)

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, lens = self.subsampling(feats, lens)
        x = self.embed(x)
        if self.positions is not None:
            x = x + self.positions(x.shape[1], x)
        mask = valid_frames(lens, x.shape[1])  # (B, U)
        seen = attention_mask(mask, self.context.mask(x.shape[1], x.device))
        for layer in self.layers:
            x = layer(x, mask, seen)
        return x.masked_fill(~mask[:, :, None], 0), lens


class EBranchformerBlock(nn.Module):
    """x + FF/2, + merge of the two branches, + FF/2, layer norm (figure 2 of the paper)."""

    def __init__(
        self,
        d_model: int,
        attention: Any,
        ff_expansion: int,
        gating_expansion: int,
        kernel_size: int,
        dropout: float,
    ):
        super().__init__()
        self.feed_forward_in = _feed_forward(d_model, ff_expansion, dropout)
        self.norm_global = nn.LayerNorm(d_model)
        self.global_branch = attention
        self.norm_local = nn.LayerNorm(d_model)
        self.local_branch = ConvolutionalGatingMlp(d_model, gating_expansion, kernel_size, dropout)
        self.merge = BranchMerge(d_model, kernel_size)
        self.feed_forward_out = _feed_forward(d_model, ff_expansion, dropout)
        self.norm_out = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, seen: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool: valid, (B,U|1,U) bool: may be looked at -> (B,U,D)"""
        x = x + 0.5 * self.feed_forward_in(x)
        far = self.dropout(self.global_branch(self.norm_global(x), seen))
        near = self.dropout(self.local_branch(self.norm_local(x), mask))
        x = x + self.dropout(self.merge(far, near, mask))
        x = x + 0.5 * self.feed_forward_out(x)
        return self.norm_out(x)


class ConvolutionalGatingMlp(nn.Module):
    """cgMLP (Sakuma et al. 2021): half of the hidden channels, convolved over time, gates the other half.

    Z = GELU(X U); [A, G] = Z; the spatial gating unit gives A * (depthwise convolution of LN(G)); then a projection.
    """

    def __init__(self, d_model: int, expansion: int, kernel_size: int, dropout: float):
        super().__init__()
        d_hidden = expansion * d_model
        if d_hidden < 2 or d_hidden % 2:
            raise ValueError(
                f"gating_expansion={expansion} times d_model={d_model} must be even and positive: "
                "one half gates the other"
            )
        self.linear_in = nn.Linear(d_model, d_hidden)
        self.norm = nn.LayerNorm(d_hidden // 2)
        self.depthwise = DepthwiseConv(d_hidden // 2, kernel_size, stride=1)
        # The gate begins at one: the unit passes A on until it has learnt more (Liu et al. 2021, gMLP, section 2.1).
        nn.init.normal_(self.depthwise.conv.weight, std=1e-6)
        nn.init.ones_(self.depthwise.conv.bias)  # pyright: ignore[reportArgumentType]
        self.linear_out = nn.Linear(d_hidden // 2, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D), (B,U) bool -> (B,U,D)"""
        content, gate = nn.functional.gelu(self.linear_in(x)).chunk(2, dim=-1)
        return self.linear_out(self.dropout(content * self.depthwise(self.norm(gate), mask)))


class BranchMerge(nn.Module):
    """Z = [global, local]; (Z + depthwise convolution of Z) W: neighbouring frames are asked too (equation 4)."""

    def __init__(self, d_model: int, kernel_size: int):
        super().__init__()
        self.depthwise = DepthwiseConv(2 * d_model, kernel_size, stride=1)
        self.linear = nn.Linear(2 * d_model, d_model)

    def forward(self, far: Tensor, near: Tensor, mask: Tensor) -> Tensor:
        """Twice (B,U,D), (B,U) bool -> (B,U,D)"""
        both = torch.cat([far, near], dim=-1)
        return self.linear(both + self.depthwise(both, mask))


def _feed_forward(d_model: int, expansion: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(d_model),
        nn.Linear(d_model, expansion * d_model),
        nn.SiLU(),
        Dropout(dropout),
        nn.Linear(expansion * d_model, d_model),
        Dropout(dropout),
    )
