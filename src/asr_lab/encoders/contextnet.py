"""ContextNet encoder (Han et al. 2020): separable 1-D convolutions in which each block hears the whole utterance."""

import math

from torch import Tensor, nn

from asr_lab.layers.conv import SeparableBlock, Style, valid
from asr_lab.layers.receptive_field import IDENTITY
from asr_lab.layers.stages import rows, spread, whole


class ContextNetEncoder(nn.Module):
    """A first convolution, `n_layers` blocks of `n_repeats` with squeeze-excitation and residual, a last convolution.

    Table 1 of the paper. `stages` are [blocks, width]: how the 23 blocks C0 to C22 are divided, the first and the last
    of them single convolutions, and the width as a share of `d_model` (the paper's alpha times 512). `n_layers` counts
    what lies between and is divided in the same proportion; 21 is the published depth. The last convolution of a stage
    has the stage's stride; a stage that gets no block hands it on to the next.
    """

    memory_growth = "linear"
    exports = True
    stream_frames = None

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        n_repeats: int,
        kernel_size: int,
        stages: list[list[float]],
        strides: list[int],
        reduction: int,
        norm: str,
        dropout: float,
    ):
        super().__init__()
        whole(d_model=d_model)
        table = rows("stages", stages, "blocks", "width")
        if len(table) < 3 or len(strides) != len(table):
            raise ValueError(
                f"stages wants at least 3 rows (first convolution, blocks, last convolution) and strides one number "
                f"for each, {len(table)} rows and strides={strides} came"
            )
        for stride in strides:
            whole(strides=stride)
        n_blocks = [1, *spread(n_layers, [n for n, _ in table[1:-1]]), 1]
        style = Style(norm, nn.functional.silu, dropout, reduction=reduction)
        self.out_dim, field, self.layers, pending = in_dim, IDENTITY, nn.ModuleList(), 1
        for i, (n, (_, width), stride) in enumerate(zip(n_blocks, table, strides, strict=True)):
            pending *= stride
            inner = 0 < i < len(table) - 1
            for j in range(n):
                step, pending = (pending, 1) if j == n - 1 else (1, pending)
                wide = round(width * d_model)
                repeats = n_repeats if inner else 1
                block = SeparableBlock(self.out_dim, wide, kernel_size, repeats, style, step, residual=inner)
                self.out_dim, field = wide, block.field(field)
                self.layers.append(block)
        self.factor = math.prod(strides)
        self.receptive_field = field.all()  # squeeze-excitation

    def output_lengths(self, lens: Tensor) -> Tensor:
        return (lens + self.factor - 1) // self.factor

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, mask = feats, valid(feats, lens)
        for layer in self.layers:
            x, mask = layer(x, mask)
        return x.masked_fill(~mask[:, :, None], 0), self.output_lengths(lens)
