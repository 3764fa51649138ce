"""How loud audio is."""

import numpy as np
from torch import Tensor


def power(audio: Tensor) -> float:
    """Mean square of (S,); 0 of nothing.

    PyTorch's sums and Fourier transforms depend in their last bits on the number of threads, NumPy's do not. Loading
    processes have one thread, and must give what the training process gives.
    """
    return float(np.square(audio.numpy()).mean(dtype=np.float64)) if len(audio) else 0.0
