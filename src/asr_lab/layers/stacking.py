"""Frame stacking: neighbouring frames side by side in one, at a lower rate."""

from typing import Any

from torch import Tensor, nn

from asr_lab.layers.masks import valid_frames


class FrameStacking(nn.Module):
    """Output frame u is input frames u * stride to u * stride + n_stacked - 1 in a row, zeros beyond the last one.

    (B, T, F) -> (B, ceil(T / stride), n_stacked * F); no parameters. Sak et al. (2015), "Fast and accurate recurrent
    neural network acoustic models for speech recognition", stack 8 frames with a stride of 3.
    """

    def __init__(self, n_stacked: int, stride: int):
        super().__init__()
        if not 1 <= stride <= n_stacked:
            raise ValueError(
                f"stacking factor {n_stacked} with stride {stride}: wanted is 1 <= stride <= factor, so that every "
                "frame is in a stack"
            )
        self.n_stacked, self.stride = n_stacked, stride

    def output_lengths(self, lens: Any) -> Any:
        return (lens + self.stride - 1) // self.stride

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> (B,U,n_stacked*F), (B,)"""
        n_frames = feats.shape[1]
        # The last stack may reach into the padding.
        feats = feats.masked_fill(~valid_frames(lens, n_frames)[:, :, None], 0)
        missing = (self.output_lengths(n_frames) - 1) * self.stride + self.n_stacked - n_frames
        stacks = nn.functional.pad(feats, (0, 0, 0, missing)).unfold(1, self.n_stacked, self.stride)  # (B, U, F, n)
        return stacks.transpose(2, 3).flatten(2), self.output_lengths(lens)
