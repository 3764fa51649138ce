"""Butterworth filters in second-order sections (scipy.signal)."""

import numpy as np
import torch
from scipy import signal
from torch import Tensor


class Butterworth:
    """A filter of order `order` (a band-pass has that order on either side).

    Attenuation at a cut-off is 3 dB. With `zero_phase` the filter runs forward and then backward: no delay, twice the
    attenuation in dB (6 at a cut-off), and samples before an onset hear of it. Without, it is causal and starts as if
    the first sample had always been there, so that an offset makes no click.
    """

    keeps_length = True

    def __init__(self, sample_rate: int, cutoffs_hz: list[float], kind: str, order: int, zero_phase: bool):
        if order < 1:
            raise ValueError(f"order must be at least 1, {order} came")
        nyquist = sample_rate / 2
        ordered = all(a < b for a, b in zip([0, *cutoffs_hz], [*cutoffs_hz, nyquist], strict=True))
        if not ordered:
            came = " and ".join(f"{f:g}" for f in cutoffs_hz)
            raise ValueError(
                f"cut-off frequencies rise between 0 and {nyquist:g} Hz, half of the sampling rate; {came} came"
            )
        self.sections = np.asarray(signal.butter(order, np.squeeze(cutoffs_hz), kind, fs=sample_rate, output="sos"))
        self.steady = signal.sosfilt_zi(self.sections)  # state after a long time of ones
        self.zero_phase = zero_phase

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (S,)"""
        x = audio.numpy().astype(np.float64)
        if self.zero_phase:
            # The ends are continued point-symmetrically, as far as a short recording allows.
            n_beyond = min(6 * len(self.sections) + 3, len(x) - 1)
            y = signal.sosfiltfilt(self.sections, x, padlen=n_beyond)
        else:
            y, _ = signal.sosfilt(self.sections, x, zi=self.steady * x[0])
        return torch.from_numpy(y.astype(np.float32))


class HighPass(Butterworth):
    """What lies below `cutoff_hz` is taken away."""

    def __init__(self, sample_rate: int, cutoff_hz: float, order: int, zero_phase: bool):
        super().__init__(sample_rate, [cutoff_hz], "highpass", order, zero_phase)


class BandPass(Butterworth):
    """What lies outside `low_hz` to `high_hz` is taken away."""

    def __init__(self, sample_rate: int, low_hz: float, high_hz: float, order: int, zero_phase: bool):
        super().__init__(sample_rate, [low_hz, high_hz], "bandpass", order, zero_phase)
