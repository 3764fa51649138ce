"""Pre-emphasis."""

import torch
from torch import Tensor


class Preemphasis:
    """y[t] = x[t] - a x[t-1] with x[-1] = x[0], as Kaldi does within frames; |H(f)|^2 = 1 + a^2 - 2 a cos(2 pi f)."""

    keeps_length = True

    def __init__(self, coefficient: float):
        if not 0 < coefficient <= 1:
            raise ValueError(f"coefficient is in (0, 1], {coefficient} came")
        self.coefficient = coefficient

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (S,)"""
        return audio - self.coefficient * torch.cat([audio[:1], audio[:-1]])
