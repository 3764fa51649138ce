"""Time subsampling in front of an encoder, with lengths honoured after every stage."""

import torch
from torch import Tensor, nn

from asr_lab.layers.dropout import Dropout
from asr_lab.layers.masks import valid_frames


class DepthwiseSubsampling4(nn.Module):
    """A quarter of the frame rate by two strided 3x3 convolutions, the second one depthwise-separable.

    (B, T, F) -> (B, ceil(ceil(T/2)/2), D). The separable second stage is what makes it cheap: a full convolution there
    takes more than half of a small model's arithmetic (Rekesh et al. 2023, Fast Conformer, uses the same idea).
    """

    factor = 4

    def __init__(self, in_dim: int, out_dim: int, channels: int, dropout: float):
        super().__init__()
        self.first = nn.Conv2d(1, channels, kernel_size=3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, kernel_size=1)
        reduced = self.output_lengths(torch.tensor(in_dim)).item()  # the convolution halves the feature axis alike
        self.project = nn.Linear(channels * int(reduced), out_dim)
        self.dropout = Dropout(dropout)

    def output_lengths(self, lens: Tensor) -> Tensor:
        return _half(_half(lens))

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,D), (B,)"""
        x = feats[:, None]  # (B, 1, T, F)
        for stage in (self.first, self.depthwise):
            # Masked before each strided stage: its kernel looks one frame beyond the last valid one.
            x = x * valid_frames(lens, x.shape[2])[:, None, :, None]
            lens = _half(lens)
            x = self.pointwise(self._depthwise(x)) if stage is self.depthwise else stage(x)
            x = torch.relu(x)
        x = x.transpose(1, 2).flatten(2)  # (B, C, U, F/4) -> (B, U, C * F/4)
        return self.dropout(self.project(x)), lens

    def _depthwise(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return self.depthwise(x)
        # PyTorch's CPU kernel for depthwise 2-D convolution is 6 times slower in bfloat16 than in float32.
        with torch.autocast("cpu", enabled=False):
            return self.depthwise(x.float())


def _half(lens: Tensor) -> Tensor:
    return (lens + 1) // 2
