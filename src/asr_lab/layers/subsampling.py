"""Time subsampling in front of an encoder, with lengths honoured after every stage."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import valid_frames
from asr_lab.layers.receptive_field import IDENTITY, ReceptiveField
from asr_lab.layers.stacking import FrameStacking


class Subsampling(Protocol):
    """A `nn.Module`, built with `in_dim` (feature width) and `out_dim` (the width that the encoder would like)."""

    out_dim: int  # what it really gives; `to_width` bridges the difference
    factor: int  # feature frames in one output frame
    streams: bool  # looks at no frame after the `factor` ones of its own output frame
    receptive_field: ReceptiveField

    def output_lengths(self, lens: Tensor) -> Tensor: ...

    def __call__(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,out_dim), (B,)"""
        ...

    def stream(self, feats: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(B, n * factor, F) (the last piece may be any length), state (None: the beginning) -> (B,n,out_dim), state"""
        ...


class Stacking(FrameStacking):
    """`n_stacked` neighbouring frames side by side in one, see `FrameStacking`. No parameters."""

    def __init__(self, in_dim: int, out_dim: int, n_stacked: int, stride: int):
        super().__init__(n_stacked, stride)
        self.out_dim = n_stacked * in_dim
        self.factor = stride
        self.streams = n_stacked == stride
        self.receptive_field = ReceptiveField(0, n_stacked - 1, stride)

    def stream(self, feats: Tensor, state: None) -> tuple[Tensor, None]:
        lens = torch.full((feats.shape[0],), feats.shape[1], device=feats.device)
        return self(feats, lens)[0], None


class ConvSubsampling(nn.Module):
    """Strided 2-D convolutions over time and frequency with ReLU, then a projection of all channels to `out_dim`.

    `stages` are [kernel, stride] pairs, the strides multiply: [[3,2],[3,2]] is the Conv2dSubsampling4 of ESPnet and
    WeNet, [[3,2],[5,3]] their 6, three times [3,2] their 8. `separable` makes every stage after the first a depthwise
    convolution and a pointwise one: a full convolution there takes more than half of a small model's arithmetic (Rekesh
    et al. 2023, Fast Conformer). `padding` in time is

    centred: frame u looks at both sides of u * factor, and T frames give ceil(T / factor);
    causal:  it looks back only; the same lengths;
    valid:   nothing is padded, in frequency neither, as in WeNet: fewer frames, and short utterances give none.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        channels: int,
        stages: list[list[int]],
        separable: bool,
        padding: str,
        dropout: float,
    ):
        super().__init__()
        if padding not in ("centred", "causal", "valid"):
            raise ValueError(f"subsampling.padding is centred, causal or valid, {padding!r} came")
        if any(kernel % 2 == 0 or stride < 1 for kernel, stride in stages):
            raise ValueError(f"subsampling.stages wants odd kernels and strides of at least 1, {stages} came")
        self.stages, self.padding, self.out_dim = [tuple(s) for s in stages], padding, out_dim
        self.factor, self.receptive_field = 1, IDENTITY
        self.streams = padding == "causal"
        self.convs = nn.ModuleList()
        n_bands, c_in = in_dim, 1
        for i, (kernel, stride) in enumerate(self.stages):
            self.convs.append(_stage(c_in, channels, kernel, stride, separable and i > 0, padding))
            n_bands = _length(n_bands, kernel, stride, padding)
            self.factor *= stride
            if padding == "valid":
                self.receptive_field = self.receptive_field.then(0, kernel - 1, stride)
            else:
                self.receptive_field = self.receptive_field.conv(kernel, stride, causal=self.streams)
            c_in = channels
        if n_bands < 1:
            raise ValueError(f"{in_dim} features are too few for subsampling.stages={stages} with padding={padding}")
        self.project = nn.Linear(channels * n_bands, out_dim)
        self.dropout = Dropout(dropout)

    def output_lengths(self, lens: Tensor) -> Tensor:
        for kernel, stride in self.stages:
            lens = _length(lens, kernel, stride, self.padding)
        return lens.clamp(min=0)

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        if self.padding == "valid" and feats.shape[1] <= self.receptive_field.right:
            raise ValueError(
                f"{feats.shape[1]} feature frames are fewer than the {self.receptive_field.right + 1} that "
                "subsampling.padding=valid needs; choose subsampling.padding=centred"
            )
        x = feats[:, None]  # (B, 1, T, F)
        for conv, (kernel, stride) in zip(self.convs, self.stages, strict=True):
            # Masked before each stage: its kernel may look beyond the last valid frame.
            x = x.masked_fill(~valid_frames(lens, x.shape[2])[:, None, :, None], 0)
            if self.padding == "causal":
                x = nn.functional.pad(x, (0, 0, kernel - 1, 0))
            x = torch.relu(conv(x))
            lens = _length(lens, kernel, stride, self.padding).clamp(min=0)
        return self._out(x), lens

    def stream(self, feats: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        x, kept = feats[:, None], []
        for i, (conv, (kernel, _)) in enumerate(zip(self.convs, self.stages, strict=True)):
            before = state[i] if state else x.new_zeros(x.shape[0], x.shape[1], kernel - 1, x.shape[3])
            x = torch.cat([before, x], dim=2)
            kept.append(x[:, :, x.shape[2] - kernel + 1 :])
            x = torch.relu(conv(x))
        return self._out(x), kept

    def _out(self, x: Tensor) -> Tensor:
        """(B,C,U,F') -> (B,U,D)"""
        return self.dropout(self.project(x.transpose(1, 2).flatten(2)))


def to_width(subsampling: Subsampling, width: int) -> nn.Module:
    """From what a subsampling gives to the width that an encoder needs: a linear layer, or nothing."""
    return nn.Identity() if subsampling.out_dim == width else nn.Linear(subsampling.out_dim, width)


class _Depthwise(nn.Conv2d):
    """PyTorch's CPU kernel for depthwise 2-D convolution is 6 times slower in bfloat16 than in float32."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def _stage(c_in: int, c_out: int, kernel: int, stride: int, separable: bool, padding: str) -> nn.Module:
    half = kernel // 2
    pad = {"centred": (half, half), "causal": (0, half), "valid": (0, 0)}[padding]  # time, frequency
    if not separable:
        return nn.Conv2d(c_in, c_out, kernel, stride, pad)
    return nn.Sequential(_Depthwise(c_in, c_in, kernel, stride, pad, groups=c_in), nn.Conv2d(c_in, c_out, 1))


def _length(n: Any, kernel: int, stride: int, padding: str) -> Any:
    """Frames or bands after a stage, of a number or a tensor of them."""
    return (n - kernel) // stride + 1 if padding == "valid" else (n - 1) // stride + 1
