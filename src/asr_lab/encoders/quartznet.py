"""QuartzNet encoder (Kriman et al. 2019): deep time-channel separable 1-D convolutions. Causal, it streams."""

import torch
from torch import Tensor, nn

from asr_lab.layers.conv import Past, SeparableBlock, Style, valid
from asr_lab.layers.receptive_field import IDENTITY
from asr_lab.layers.stages import rows, spread, whole


class QuartzNetEncoder(nn.Module):
    """A strided prologue, `n_layers` residual blocks of `n_repeats` separable convolutions, an epilogue.

    Figure 1 and table 1 of the paper. `blocks` are its groups of blocks, [kernel, width]; `n_layers` is divided among
    them evenly: 5, 10 and 15 are QuartzNet-5x5, -10x5 and -15x5. `prologue` is [kernel, width, stride], `epilogue` has
    [kernel, width, dilation] of the layers after the blocks. All widths are shares of `d_model`. `causal`, each kernel
    looks back only, at a receptive field that is as wide.
    """

    memory_growth = "linear"
    exports = True

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        n_repeats: int,
        prologue: list[float],
        blocks: list[list[float]],
        epilogue: list[list[float]],
        causal: bool,
        norm: str,
        dropout: float,
    ):
        super().__init__()
        whole(d_model=d_model)
        [(kernel, width, stride)] = rows("prologue", [prologue], "kernel", "width", "stride")
        groups = rows("blocks", blocks, "kernel", "width")
        # kernel, width, repeats, stride, dilation, residual
        layers = [(kernel, width, 1, stride, 1, False)]
        for (kernel, width), n in zip(groups, spread(n_layers, [1] * len(groups)), strict=True):
            layers += [(kernel, width, n_repeats, 1, 1, True)] * n
        for kernel, width, dilation in rows("epilogue", epilogue, "kernel", "width", "dilation"):
            layers.append((kernel, width, 1, 1, dilation, False))
        style = Style(norm, torch.relu, dropout, causal)
        self.out_dim, self.receptive_field, self.layers = in_dim, IDENTITY, nn.ModuleList()
        for kernel, width, repeats, step, dilation, residual in layers:
            wide = round(width * d_model)
            block = SeparableBlock(self.out_dim, wide, kernel, repeats, style, step, dilation, residual)
            self.out_dim, self.receptive_field = wide, block.field(self.receptive_field)
            self.layers.append(block)
        self.factor = stride
        self.stream_frames = stride if causal else None

    def output_lengths(self, lens: Tensor) -> Tensor:
        return (lens + self.factor - 1) // self.factor

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, mask = feats, valid(feats, lens)
        for layer in self.layers:
            x, mask = layer(x, mask)
        return x.masked_fill(~mask[:, :, None], 0), self.output_lengths(lens)

    def stream(self, feats: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """(B, n * stride, F) (the last piece may be any length), state (None: the beginning) -> (B,n,D), state"""
        past = Past(state)
        x, mask = feats, feats.new_ones(feats.shape[:2], dtype=torch.bool)
        for layer in self.layers:
            x, mask = layer(x, mask, past)
        return x, past.state
