"""Noise reduction by a Wiener filter."""

import numpy as np
import torch
from torch import Tensor

from asr_lab.preprocess.stft import Stft, check_share


class Wiener:
    """Gain xi / (1 + xi) on each bin of a spectrogram, with the a-priori SNR xi estimated decision-directed.

    Scalart & Filho (1996), "Speech enhancement based on a priori signal to noise estimation"; the estimate
    xi_t = a G_{t-1}^2 gamma_{t-1} + (1 - a) max(gamma_t - 1, 0), gamma = |Y|^2 / noise, is that of Ephraim & Malah
    (1984). The noise is the mean power of the recording's quietest frames, the gain at least -`reduction_db`. A
    recording with too few frames to tell its noise stays as it is.
    """

    keeps_length = True

    def __init__(self, sample_rate: int, window_ms: float, noise_share: float, smoothing: float, reduction_db: float):
        check_share(noise_share, reduction_db)
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing is in [0, 1), {smoothing} came")
        self.stft = Stft(sample_rate, window_ms)
        self.noise_share, self.smoothing = noise_share, smoothing
        self.lowest = 10 ** (-reduction_db / 20)

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (S,)"""
        if len(audio) <= self.stft.n_fft:
            return audio
        spectrum = self.stft(audio)
        power = spectrum.abs().square()
        noise = self.stft.noise_power(audio, power, self.noise_share)
        if noise is None:
            return audio
        gain = torch.from_numpy(self._gains((power / noise).T.numpy()))
        return self.stft.inverse(spectrum * gain.T, len(audio))

    def _gains(self, snr: np.ndarray) -> np.ndarray:
        """A-posteriori SNR (T, F) -> gain (T, F)"""
        gains, fresh = np.empty_like(snr), np.maximum(snr - 1, 0)
        before = fresh[0]  # so that a recording which begins with speech does not fade in
        for t, now in enumerate(fresh):
            prior = self.smoothing * before + (1 - self.smoothing) * now
            gains[t] = np.maximum(prior / (1 + prior), self.lowest)
            before = gains[t] ** 2 * snr[t]
        return gains
