"""Heads: the part of a front-end that is trained, or at least runs, with the model."""

from torch import Tensor, nn

from asr_lab.layers.stacking import FrameStacking


class NoHead(nn.Module):
    """Frames as they are."""

    def __init__(self, in_dim: int):
        super().__init__()
        self.out_dim = in_dim

    def output_lengths(self, lens: Tensor) -> Tensor:
        return lens

    def forward(self, feats: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,F), (B,) -> the same"""
        return feats, lens


class Stacking(FrameStacking):
    """Frame stacking, see `FrameStacking`: fewer and wider frames for the encoder."""

    def __init__(self, in_dim: int, n_stacked: int, stride: int):
        super().__init__(n_stacked, stride)
        self.out_dim = n_stacked * in_dim
