"""Speech as a telephone passes it on."""

import math

import torch
from scipy.signal import butter, sosfilt
from torch import Generator, Tensor

from asr_lab.augment.none import NoAugment

MU = 255  # companding of ITU-T G.711, µ-law
N_LEVELS = 127  # on either side of 0


class Telephone(NoAugment):
    """A Butterworth band-pass from `low_hz` to `high_hz`, then 8 bits of µ-law. It draws nothing; see `Sometimes`."""

    on_audio = True

    def __init__(self, low_hz: float, high_hz: float, order: int, sample_rate: int):
        if not 0 < low_hz < high_hz < sample_rate / 2 or order < 1:
            raise ValueError(
                f"0 < low_hz < high_hz < {sample_rate / 2:g} (half the sampling rate) and order > 0 are wanted; "
                f"{low_hz}, {high_hz} and {order} came"
            )
        self.filter = butter(order, (low_hz, high_hz), "bandpass", fs=sample_rate, output="sos")

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        """(S,) -> (S,)"""
        if not len(audio):
            return audio
        band = torch.from_numpy(sosfilt(self.filter, audio.numpy())).to(audio.dtype).clamp(-1, 1)
        return through_mu_law(band)


def through_mu_law(audio: Tensor) -> Tensor:
    """(S,) in [-1, 1] -> (S,) at the levels of the code; 0 stays 0"""
    code = torch.round(N_LEVELS * torch.log1p(MU * audio.abs()) / math.log1p(MU))
    return audio.sign() * torch.expm1(code / N_LEVELS * math.log1p(MU)) / MU
