"""Reverberation: convolution with the impulse response of a room, recorded or synthetic."""

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Generator, Tensor

from asr_lab.augment.draws import below, check_range, uniform
from asr_lab.augment.folder import AudioFolder, opened
from asr_lab.augment.level import power
from asr_lab.augment.none import NoAugment
from asr_lab.errors import DataError

SYNTHETIC = "synthetic"


class Reverb(NoAugment):
    """An utterance in a room, drawn from one of `sources`, equally likely: `synthetic`, or a folder of recorded impulse
    responses.

    What is before the direct path (the largest sample) of a response is cut away, so speech stays where it was; length
    and energy of the utterance are kept. The ranges are those of synthetic rooms: RT60, the time in which the
    reverberation falls by 60 dB, and the ratio of direct to reverberant energy (DRR) in dB, both uniform.
    """

    on_audio = True

    def __init__(
        self,
        sources: list[str],
        min_rt60_s: float,
        max_rt60_s: float,
        min_drr_db: float,
        max_drr_db: float,
        sample_rate: int,
    ):
        check_range("rt60_s", min_rt60_s, max_rt60_s, least=0.01)
        check_range("drr_db", min_drr_db, max_drr_db)
        self.sources = opened(sources, [SYNTHETIC], sample_rate)
        self.min_rt60_s, self.max_rt60_s = min_rt60_s, max_rt60_s
        self.min_drr_db, self.max_drr_db = min_drr_db, max_drr_db
        self.sample_rate = sample_rate

    def audio(self, audio: Tensor, generator: Generator) -> Tensor:
        """(S,) -> (S,)

        Raises:
            DataError: the impulse response that was drawn cannot be read, or is silent.
        """
        source = self.sources[below(len(self.sources), generator)]
        if isinstance(source, AudioFolder):
            response = _from_direct_path(*source.whole(generator))
        else:
            rt60_s = uniform(self.min_rt60_s, self.max_rt60_s, generator)
            drr_db = uniform(self.min_drr_db, self.max_drr_db, generator)
            response = synthetic_room(rt60_s, drr_db, self.sample_rate, generator)
        return reverberated(audio, response)


def synthetic_room(rt60_s: float, drr_db: float, sample_rate: int, generator: Generator) -> Tensor:
    """(S,) impulse response: 1 for the direct path, then Gaussian noise whose level falls by 60 dB in `rt60_s`.

    The statistical model of late reverberation (Polack 1988), without single early reflections and with the same decay
    at all frequencies.
    """
    n_samples = max(1, round(rt60_s * sample_rate))
    decay = 10 ** (-3 * torch.arange(1, n_samples + 1) / n_samples)
    tail = torch.randn(n_samples, generator=generator) * decay
    tail *= 10 ** (-drr_db / 20) / (n_samples * power(tail)) ** 0.5
    return torch.cat([torch.ones(1), tail])


def reverberated(audio: Tensor, response: Tensor) -> Tensor:
    """(S,), impulse response (R,) from the direct path on -> (S,) of the same energy"""
    n_samples = len(audio)
    response = response[:n_samples]
    loudness = power(audio)
    if not loudness > 0:
        return audio
    n_fft = next_fast_len(n_samples + len(response) - 1, real=True)
    spectrum = np.fft.rfft(audio.numpy(), n_fft) * np.fft.rfft(response.numpy(), n_fft)  # see level.py
    wet = torch.from_numpy(np.fft.irfft(spectrum, n_fft)[:n_samples])
    wet_loudness = power(wet)
    return wet * (loudness / wet_loudness) ** 0.5 if wet_loudness > 0 else audio


def _from_direct_path(response: Tensor, path: object) -> Tensor:
    strength = response.abs()
    direct = int(strength.argmax())
    if not strength[direct] > 0:
        raise DataError(f"{path} is silent, and no impulse response; remove it, or replace it")
    return response[direct:]
