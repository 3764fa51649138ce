"""Loudness normalisation (ITU-R BS.1770-4)."""

import math

import numpy as np
from scipy import signal
from torch import Tensor


class Loudness:
    """One gain for a recording, to `target_lufs`; held back where a sample would exceed `peak_dbfs`.

    A recording in which nothing reaches -70 LUFS, the standard's gate, is left as it is.
    """

    keeps_length = True

    def __init__(self, sample_rate: int, target_lufs: float, peak_dbfs: float):
        if sample_rate < 4000:
            raise ValueError(f"loudness needs a sampling rate of at least 4000 Hz, {sample_rate} came")
        if not -70 < target_lufs <= 0 or not -60 <= peak_dbfs <= 0:
            raise ValueError(
                f"target_lufs is in (-70, 0] and peak_dbfs in [-60, 0], {target_lufs} and {peak_dbfs} came"
            )
        self.sample_rate, self.target_lufs, self.peak = sample_rate, target_lufs, 10 ** (peak_dbfs / 20)

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (S,)"""
        lufs = loudness(audio.numpy(), self.sample_rate)
        if not math.isfinite(lufs):
            return audio
        gain = min(10 ** ((self.target_lufs - lufs) / 20), self.peak / float(audio.abs().max()))
        return (audio * gain).clamp(-self.peak, self.peak)  # the last bit of rounding


def loudness(audio: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness of one channel in LUFS, -inf where nothing reaches -70 (ITU-R BS.1770-4, Annex 1).

    Blocks of 400 ms with three quarters of overlap; those below -70 LUFS and then those 10 below the mean of the others
    do not count. A recording shorter than a block is one block, which the standard leaves open. torchaudio's version
    of it clips the filtered signal at full scale, is NaN for silence and needs a whole block.
    """
    weighted = np.asarray(signal.sosfilt(k_weighting(sample_rate), audio.astype(np.float64)))
    size = min(round(0.4 * sample_rate), len(weighted))
    step = max(1, round(0.1 * sample_rate))
    sums = np.concatenate([[0.0], np.cumsum(weighted**2)])
    starts = np.arange(0, len(weighted) - size + 1, step)
    power = (sums[starts + size] - sums[starts]) / size
    power = power[power > _power(-70)]
    if len(power) == 0:
        return -math.inf
    power = power[power > power.mean() / 10]
    return -0.691 + 10 * math.log10(power.mean())


def k_weighting(sample_rate: int) -> np.ndarray:
    """(2, 6) second-order sections: a shelf for the head's effect, then a high-pass.

    The standard gives coefficients at 48 kHz only. These are analogue filters, with the constants that libebur128 uses,
    through the bilinear transform: at 48 kHz they give the standard's coefficients.
    """
    high, band = 10 ** (3.999843853973347 / 20), 10 ** (3.999843853973347 * 0.4996667741545416 / 20)
    shelf = _section(sample_rate, 1681.974450955533, 0.7071752369554196, (high, band, 1.0))
    passing = _section(sample_rate, 38.13547087602444, 0.5003270373238773, (1.0, 0.0, 0.0))
    passing[:3] = 1.0, -2.0, 1.0  # the standard's gain: not normalised
    return np.stack([shelf, passing])


def _section(sample_rate: int, f: float, q: float, gains: tuple[float, float, float]) -> np.ndarray:
    """(high s^2 + band s / q + low) / (s^2 + s / q + 1) at s = 2 pi i f"""
    high, band, low = gains
    k = math.tan(math.pi * f / sample_rate)
    b = [high + band * k / q + low * k * k, 2 * (low * k * k - high), high - band * k / q + low * k * k]
    a = [1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k]
    return np.array([*b, *a]) / a[0]


def _power(lufs: float) -> float:
    return 10 ** ((lufs + 0.691) / 10)
