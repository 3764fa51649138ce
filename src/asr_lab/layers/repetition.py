"""Back to a higher frame rate by repetition."""

from torch import Tensor


def repeat_frames(x: Tensor, factor: int, n_frames: int) -> Tensor:
    """(B, ceil(n_frames / factor), D) -> (B, n_frames, D): frame u is frame u // factor of x."""
    return x[:, :, None].expand(-1, -1, factor, -1).flatten(1, 2)[:, :n_frames]
