"""Depthwise convolution over time that does not hear the padding."""

from torch import Tensor, nn


class DepthwiseConv(nn.Module):
    """One filter of `kernel_size` frames for each channel, centred: (B, U, D) -> (B, ceil(U / stride), D)."""

    def __init__(self, d_model: int, kernel_size: int, stride: int):
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel sizes must be odd and positive (the window is centred), {kernel_size} came")
        self.conv = nn.Conv1d(d_model, d_model, kernel_size, stride, padding=kernel_size // 2, groups=d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D) finite, (B,U) bool: valid -> (B,ceil(U/stride),D)"""
        return self.conv((x * mask[:, :, None]).transpose(1, 2)).transpose(1, 2)
