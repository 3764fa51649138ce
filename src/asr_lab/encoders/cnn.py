"""The plain convolutional network of teaching texts over a mel image, with a frame axis left for CTC."""

import math

import torch
from torch import Tensor, nn

from asr_lab.layers.conv import every, norm_of, valid
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.receptive_field import IDENTITY
from asr_lab.layers.stages import odd, rows, whole


class CnnEncoder(nn.Module):
    """Stages of [convolution, norm, ReLU] times `n_layers`, max pooling; then a fully connected layer for each frame.

    A classifier of images (LeCun et al. 1998) flattens what is left of a picture; here only channels and bands of a
    frame are, so that each remaining frame gets a vector. `stages` are [width, pooling in time, pooling in frequency],
    the width as a share of `d_model`, which is that of the fully connected layer.
    """

    memory_growth = "linear"
    exports = False  # torch.export takes PyTorch's max pooling for odd or for even lengths, not for both
    stream_frames = None

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        kernel_size: int,
        stages: list[list[float]],
        norm: str,
        dropout: float,
    ):
        super().__init__()
        whole(d_model=d_model, n_layers=n_layers)
        odd(kernel_size=kernel_size)
        self.out_dim, self.receptive_field, self.stages = d_model, IDENTITY, nn.ModuleList()
        n_bands, c_in = in_dim, 1
        for width, *pool in rows("stages", stages, "width", "pooling in time", "pooling in frequency"):
            stage = ConvStage(c_in, round(width * d_model), n_layers, kernel_size, pool, norm, dropout)
            self.stages.append(stage)
            for _ in range(n_layers):
                self.receptive_field = self.receptive_field.conv(kernel_size)
            self.receptive_field = self.receptive_field.then(0, stage.pool[0] - 1, stage.pool[0])
            n_bands, c_in = math.ceil(n_bands / stage.pool[1]), round(width * d_model)
        self.project = nn.Linear(n_bands * c_in, d_model)
        self.dropout = Dropout(dropout)

    def output_lengths(self, lens: Tensor) -> Tensor:
        return (lens + self.receptive_field.stride - 1) // self.receptive_field.stride

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, mask = feats[..., None], valid(feats, lens)
        for stage in self.stages:
            x, mask = stage(x, mask)
        x = self.dropout(torch.relu(self.project(x.flatten(2))))
        return x.masked_fill(~mask[:, :, None], 0), self.output_lengths(lens)


class ConvStage(nn.Module):
    """`n_layers` of [convolution, norm, ReLU], max pooling, dropout."""

    def __init__(
        self, c_in: int, c_out: int, n_layers: int, kernel_size: int, pool: list[int], norm: str, dropout: float
    ):
        super().__init__()
        whole(width=c_out, pooling_in_time=pool[0], pooling_in_frequency=pool[1])
        self.pool = (pool[0], pool[1])
        self.convs = nn.ModuleList(
            nn.Conv2d(c_out if i else c_in, c_out, kernel_size, padding=kernel_size // 2, bias=norm == "none")
            for i in range(n_layers)
        )
        self.norms = nn.ModuleList(norm_of(norm, c_out) for _ in range(n_layers))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F,C), (B,T) bool: valid -> (B,U,F',C'), (B,U) bool; U = ceil(T / pooling in time)"""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(_blank(x, mask).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # channels last, as in memory
            n_bands = x.shape[2]
            each_band = mask[:, :, None].expand(-1, -1, n_bands).flatten(1)  # (B, T * F)
            x = torch.relu(norm(x.flatten(1, 2), each_band)).unflatten(1, (-1, n_bands))
        # No output of a ReLU is below the zeros beyond the end: a window across it gives the maximum of what is valid.
        x = nn.functional.max_pool2d(_blank(x, mask).permute(0, 3, 1, 2), self.pool, ceil_mode=True).permute(0, 2, 3, 1)
        return self.dropout(x), every(mask, self.pool[0], x.shape[1])


def _blank(x: Tensor, mask: Tensor) -> Tensor:
    """(B,T,F,C), zero outside of the mask (B,T)"""
    return x.masked_fill(~mask[:, :, None, None], 0)
