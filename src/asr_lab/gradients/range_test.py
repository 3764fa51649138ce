"""What a learning-rate range test says: the loss while the learning rate grows (Smith 2017, section 3.3)."""

from typing import NamedTuple

import numpy as np

from asr_lab.errors import DataError

MIN_STEPS = 20
DIVERGED = 4.0  # times the best smoothed loss, where a test ends


class RangeTest(NamedTuple):
    """One entry a step; the learning rates grow by the same factor from step to step."""

    lrs: np.ndarray  # (N,)
    losses: np.ndarray  # (N,) finite
    diverged: bool


class Advice(NamedTuple):
    """None where the loss did not fall at all."""

    smoothed: np.ndarray  # (N,)
    steepest: float | None  # where the smoothed loss falls fastest over the logarithm of the learning rate
    tenth: float | None  # a tenth of `lowest`
    lowest: float | None  # where the smoothed loss is lowest: the largest before it rises
    note: str  # what is wrong with the test; "" for nothing


def ramp(min_lr: float, max_lr: float, n_steps: int) -> np.ndarray:
    """(n_steps,) from `min_lr` to `max_lr`, each a fixed factor above the one before."""
    return np.geomspace(min_lr, max_lr, n_steps)


def advise(test: RangeTest) -> Advice:
    """Two rules of thumb, both of which Gugger gave in 2018 ("How do you find a good learning rate") and fastai has:
    the learning rate of the steepest descent, and a tenth of the largest one before the loss rises.

    Smoothing is a straight line through a window of a tenth of the steps (Savitzky & Golay 1964), which lags behind
    nothing; its slope is the descent.

    Raises:
        DataError: the test ended too early to say anything.
    """
    from scipy.signal import savgol_filter

    n = len(test.losses)
    window = max(5, n // 10) | 1
    if n < window:
        raise DataError(f"the loss exploded after {n} steps; give a smaller --min-lr")
    smoothed = np.asarray(savgol_filter(test.losses, window, 1))
    slope = np.asarray(savgol_filter(test.losses, window, 1, deriv=1))  # a step is a fixed factor of the rate
    lowest = int(smoothed.argmin())
    if lowest <= window // 2:
        return Advice(smoothed, None, None, None, "the loss did not fall; give a smaller --min-lr")
    steepest = int(slope[: lowest + 1].argmin())
    note = ""
    if not test.diverged and lowest >= n - 1 - window // 2:
        note = "the loss was still falling at the end; give a larger --max-lr"
    largest = float(test.lrs[lowest])
    return Advice(smoothed, float(test.lrs[steepest]), largest / 10, largest, note)
