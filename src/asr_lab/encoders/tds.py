"""Time-depth separable encoder (Hannun et al. 2019, "Sequence-to-sequence speech recognition with TDS...")."""

import math

import torch
from torch import Tensor, nn

from asr_lab.layers.conv import Past, TimeConv, every, valid
from asr_lab.layers.dropout import Dropout
from asr_lab.layers.receptive_field import IDENTITY
from asr_lab.layers.stages import rows, spread, whole


class TdsEncoder(nn.Module):
    """Stages of a strided convolution and TDS blocks, on frames of bands times channels (section 2 of the paper).

    `stages` are [blocks, width]: `n_layers` is divided among them in the proportion of the first, the second is a share
    of `d_model`. A stage of that width has as many whole channels on each band as come nearest to it. Before the first
    stage `n_stacked` neighbouring bands become one with as many channels (1 is published; small models are too narrow
    for many channels on 80 bands). `lookahead` is the share of a kernel's other frames that lie in the future: 0.5 is
    centred, less is the asymmetric padding of Pratap et al. 2020, and with 0 the encoder streams. Layer norm is over
    one frame, as in Pratap et al.: over the whole utterance, as published first, no frame could be given early.
    """

    memory_growth = "linear"
    exports = True

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        n_layers: int,
        n_stacked: int,
        stages: list[list[float]],
        strides: list[int],
        kernel_size: int,
        lookahead: float,
        dropout: float,
    ):
        super().__init__()
        whole(d_model=d_model, n_stacked=n_stacked, kernel_size=kernel_size)
        for stride in strides:
            whole(strides=stride)
        table = rows("stages", stages, "blocks", "width")
        if len(strides) != len(table):
            raise ValueError(f"strides wants one number for each of the {len(table)} stages, {strides} came")
        if not 0 <= lookahead <= 1:
            raise ValueError(f"lookahead is a share of the kernel between 0 and 1, {lookahead} came")
        self.n_missing = -in_dim % n_stacked  # bands of zeros that fill the last stack
        n_bands = (in_dim + self.n_missing) // n_stacked
        n_right = round(lookahead * (kernel_size - 1))
        c_in, self.receptive_field, self.layers = n_stacked, IDENTITY, nn.ModuleList()
        for (_, width), n, stride in zip(table, spread(n_layers, [n for n, _ in table]), strides, strict=True):
            channels = max(1, round(width * d_model / n_bands))
            # At least to the end of the stride: no frame is lost so.
            reach = max(n_right, stride - 1)
            layers: list[Shrink | TdsBlock] = [Shrink(c_in, channels, kernel_size, reach, stride, n_bands, dropout)]
            layers += [TdsBlock(channels, kernel_size, n_right, n_bands, dropout) for _ in range(n)]
            for layer in layers:
                self.receptive_field = layer.conv.field(self.receptive_field)
            self.layers.extend(layers)
            c_in = channels
        self.out_dim = n_bands * c_in
        self.factor = math.prod(strides)
        self.stream_frames = self.factor if n_right == 0 else None

    def output_lengths(self, lens: Tensor) -> Tensor:
        return (lens + self.factor - 1) // self.factor

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x, mask = self._run(feats, valid(feats, lens), None)
        return x.masked_fill(~mask[:, :, None], 0), self.output_lengths(lens)

    def stream(self, feats: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """(B, n * factor, F) (the last piece may be any length), state (None: the beginning) -> (B,n,D), state"""
        past = Past(state)
        x, _ = self._run(feats, feats.new_ones(feats.shape[:2], dtype=torch.bool), past)
        return x, past.state

    def _run(self, x: Tensor, mask: Tensor, past: Past | None) -> tuple[Tensor, Tensor]:
        x = nn.functional.pad(x, (0, self.n_missing))  # (B, T, bands * n_stacked)
        for layer in self.layers:
            x, mask = layer(x, mask, past)
        return x, mask


class Shrink(nn.Module):
    """Convolution with a stride to more channels, ReLU, dropout, layer norm: what each stage begins with."""

    def __init__(
        self, c_in: int, c_out: int, kernel_size: int, n_right: int, stride: int, n_bands: int, dropout: float
    ):
        super().__init__()
        self.conv = TimeConv(c_in, c_out, kernel_size, n_right, stride, n_bands=n_bands)
        self.norm = nn.LayerNorm(n_bands * c_out)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, past: Past | None) -> tuple[Tensor, Tensor]:
        """(B,T,D), (B,T) bool: valid -> (B,U,D'), (B,U) bool"""
        y = self.norm(self.dropout(torch.relu(self.conv(x, mask, past))))
        return y, every(mask, self.conv.stride[0], y.shape[1])


class TdsBlock(nn.Module):
    """Convolution over time, the same for each band; then two fully connected layers; each with residual and norm."""

    def __init__(self, channels: int, kernel_size: int, n_right: int, n_bands: int, dropout: float):
        super().__init__()
        d_model = n_bands * channels
        self.conv = TimeConv(channels, channels, kernel_size, n_right, n_bands=n_bands)
        self.norm_conv = nn.LayerNorm(d_model)
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, d_model), nn.ReLU(), Dropout(dropout), nn.Linear(d_model, d_model), Dropout(dropout)
        )
        self.norm_out = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, past: Past | None) -> tuple[Tensor, Tensor]:
        """(B,U,D), (B,U) bool: valid -> (B,U,D), (B,U) bool"""
        x = self.norm_conv(x + self.dropout(torch.relu(self.conv(x, mask, past))))
        return self.norm_out(x + self.feed_forward(x)), mask
