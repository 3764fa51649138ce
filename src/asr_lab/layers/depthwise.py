"""Depthwise convolution over time that does not hear the padding."""

from torch import Tensor, nn


class DepthwiseConv(nn.Module):
    """One filter of `kernel_size` frames for each channel, centred: (B, U, D) -> (B, ceil(U / stride), D)."""

    def __init__(self, d_model: int, kernel_size: int, stride: int):
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel sizes must be odd and positive (the window is centred), {kernel_size} came")
        self.conv = nn.Conv2d(
            d_model, d_model, (1, kernel_size), (1, stride), padding=(0, kernel_size // 2), groups=d_model
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B,U,D) finite, (B,U) bool: valid -> (B,ceil(U/stride),D)"""
        # As an image of one line whose channels lie last in memory: nothing is copied, unlike in a 1-D convolution.
        line = (x * mask[:, :, None]).transpose(1, 2)[:, :, None]  # (B, D, 1, U)
        return self.conv(line)[:, :, 0].transpose(1, 2)
