"""Noise reduction by spectral gating."""

import torch
from torch import Tensor

from asr_lab.preprocess.stft import Stft, check_share


class SpectralGating:
    """Each bin of a spectrogram is turned down where it is not well above the noise floor of its frequency.

    The floor is the mean power of the recording's quietest frames. The power above it is averaged over neighbouring
    frequencies and frames, against single bins that pass and ring ("musical noise"). The gate is half open where it
    reaches `threshold_db`, its slope is a logistic function of dB, and closed it leaves -`reduction_db`. The idea is
    that of the noise reduction in Audacity and of Sainburg et al. (2020), "Finding, visualizing, and quantifying latent
    structure across diverse animal vocal repertoires"; the gate is our own. What sounds the same throughout counts as
    noise. A recording with too few frames to tell its noise floor stays as it is.
    """

    keeps_length = True

    def __init__(
        self,
        sample_rate: int,
        window_ms: float,
        noise_share: float,
        threshold_db: float,
        width_db: float,
        reduction_db: float,
        smooth_hz: float,
        smooth_ms: float,
    ):
        check_share(noise_share, reduction_db)
        if not width_db > 0 or not min(smooth_hz, smooth_ms) >= 0:
            raise ValueError(
                f"width_db must be positive, smooth_hz and smooth_ms not negative; {width_db}, {smooth_hz} and "
                f"{smooth_ms} came"
            )
        self.stft = Stft(sample_rate, window_ms)
        self.noise_share, self.threshold_db, self.width_db = noise_share, threshold_db, width_db
        self.closed = 10 ** (-reduction_db / 20)
        per_bin, per_frame = sample_rate / self.stft.n_fft, 1000 * self.stft.hop / sample_rate
        self.smooth = (_odd(smooth_hz / per_bin), _odd(smooth_ms / per_frame))  # bins, frames

    def __call__(self, audio: Tensor) -> Tensor:
        """(S,) -> (S,)"""
        if len(audio) <= self.stft.n_fft:
            return audio
        spectrum = self.stft(audio)
        power = spectrum.abs().square()
        noise = self.stft.noise_power(audio, power, self.noise_share)
        if noise is None:
            return audio
        above = torch.nn.functional.avg_pool2d(
            (power / noise)[None],
            self.smooth,
            stride=1,
            padding=(self.smooth[0] // 2, self.smooth[1] // 2),
            count_include_pad=False,
        )[0]
        gate = torch.sigmoid((10 * above.clamp(min=1e-12).log10() - self.threshold_db) / self.width_db)
        return self.stft.inverse(spectrum * (self.closed + (1 - self.closed) * gate), len(audio))


def _odd(width: float) -> int:
    return 2 * round(width / 2) + 1
